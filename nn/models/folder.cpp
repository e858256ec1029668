#include "nn/models/folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "nn/files/strict_json.h"
#include "nn/models/config.h"
#include "nn/models/family.h"
#include "nn/models/generation.h"
#include "nn/models/heads.h"
#include "nn/models/stored.h"

namespace graft {
namespace fs = std::filesystem;
namespace {

using nlohmann::json;

constexpr const char *kConfig = "config.json", *kWeights = "model.safetensors",
                     *kIndex = "model.safetensors.index.json", *kTokenizer = "tokenizer.json",
                     *kTokenizerConfig = "tokenizer_config.json";
constexpr std::uintmax_t kLongestPointer = 1024;  // of Git LFS, which allows no longer ones

// --- reading ------------------------------------------------------------------------------------

// The tensors of a folder's files, by the names that the family gives them.
struct Found {
  const SafetensorsReader* file;
  std::string name;  // in the file
  const TensorInfo& info() const { return file->at(name); }
};

class FolderTensors {
 public:
  FolderTensors(const fs::path& folder, const Family& family, const std::vector<Stored>& expected) {
    open_files(folder);
    std::vector<Found> found;
    bool prefixed = false;
    for (const auto& file : files_)
      for (const auto& [name, info] : file->tensors()) {
        found.push_back({file.get(), name});
        prefixed |= name.starts_with(family.prefix);
      }
    for (const Found& f : found) {
      std::string name = in_todays_spelling(f.name);
      const bool whole = prefixed || std::any_of(expected.begin(), expected.end(),
                                                 [&](const Stored& t) { return t.name == name; });
      if (!whole) name = family.prefix + name;
      check(tensors.emplace(name, f).second, "{}: tensor {} is there twice", folder.string(), name);
    }
  }

  std::map<std::string, Found> tensors;

 private:
  void open_files(const fs::path& folder) {
    std::set<std::string> names;
    if (fs::exists(folder / kWeights) || !fs::exists(folder / kIndex)) {
      names.insert(kWeights);
    } else {
      const json index = parse_strict((folder / kIndex).string(), read_file(folder / kIndex));
      check(index.is_object() && index.contains("weight_map") && index["weight_map"].is_object(),
            "{}: has no weight_map", (folder / kIndex).string());
      for (const auto& [tensor, file] : index["weight_map"].items()) {
        check(file.is_string() && file.get<std::string>().find('/') == std::string::npos,
              "{}: weight_map: {} is not the name of a file", (folder / kIndex).string(),
              file.dump());
        names.insert(file.get<std::string>());
      }
    }
    for (const std::string& name : names) {
      check_is_there(folder, name);
      files_.push_back(std::make_unique<SafetensorsReader>(folder / name));
    }
  }

  // What folders have in a file's place that were made by other means.
  static void check_is_there(const fs::path& folder, const std::string& name) {
    const fs::path file = folder / name;
    if (!fs::exists(file))
      for (const char* torch : {"pytorch_model.bin", "pytorch_model.bin.index.json"})
        check(!fs::exists(folder / torch),
              "{}: is missing; there is a {}: save it as safetensors with transformers first "
              "(from_pretrained, then save_pretrained)",
              file.string(), torch);
    std::error_code ignored;
    if (fs::file_size(file, ignored) < kLongestPointer && !ignored)
      check(!read_file(file).starts_with("version https://git-lfs"),
            "{}: this is a Git LFS pointer, not the file itself; run git lfs pull in its folder",
            file.string());
  }

  // BERT's first files call a norm's gain gamma and its bias beta.
  static std::string in_todays_spelling(std::string name) {
    if (name.ends_with(".gamma")) return name.replace(name.size() - 5, 5, "weight");
    if (name.ends_with(".beta")) return name.replace(name.size() - 4, 4, "bias");
    return name;
  }

  std::vector<std::unique_ptr<SafetensorsReader>> files_;
};

bool same_bytes(const Found& a, const Found& b) {
  const auto x = a.file->bytes(a.name), y = b.file->bytes(b.name);
  return a.info().dtype == b.info().dtype && std::ranges::equal(x, y);
}

// An extra's name, or its name in every layer.
std::vector<std::string> names_of(const ExtraName& extra, int layers) {
  const std::size_t at = extra.name.find("{}");
  if (at == std::string::npos) return {extra.name};
  std::vector<std::string> names;
  for (int layer = 0; layer < layers; ++layer)
    names.push_back(std::string(extra.name).replace(at, 2, std::to_string(layer)));
  return names;
}

// What is wrong with a tensor that the model has no place for; empty where it is a known extra.
std::string why_unexpected(const std::string& name, const std::map<std::string, Found>& tensors,
                           const Family& family, int layers) {
  for (const ExtraName& extra : family.extras)
    for (const std::string& known : names_of(extra, layers)) {
      if (known != name) continue;
      const auto other = tensors.find(extra.copy_of);
      if (other == tensors.end() || same_bytes(tensors.at(name), other->second)) return {};
      return fmt::format("{} differs from {}, of which a tied head has it as a copy", name,
                         extra.copy_of);
    }
  return fmt::format("{} {} is unexpected", name, tensors.at(name).info().shape);
}

std::vector<std::string> differences(const std::vector<Stored>& expected, const Family& family,
                                     const std::map<std::string, Found>& tensors, int layers) {
  std::vector<std::string> all;
  std::set<std::string> names;
  for (const Stored& tensor : expected) {
    names.insert(tensor.name);
    const auto found = tensors.find(tensor.name);
    if (found == tensors.end()) {
      all.push_back(fmt::format("{} {} is missing", tensor.name, tensor.shape));
      continue;
    }
    const TensorInfo& info = found->second.info();
    if (info.shape != tensor.shape)
      all.push_back(fmt::format("{} is {}; need {}", tensor.name, info.shape, tensor.shape));
    else if (!is_floating(info.dtype))
      all.push_back(
          fmt::format("{} is {}; need a floating type", tensor.name, name_of(info.dtype)));
  }
  for (const auto& [name, found] : tensors) {
    if (names.contains(name)) continue;
    const std::string why = why_unexpected(name, tensors, family, layers);
    if (!why.empty()) all.push_back(why);
  }
  return all;
}

// Beside a vocabulary head a file may have the matrix for pooling that the family's head for whole
// texts begins with. It is kept for that, and is no part of the language model.
void read_pooler(Model& model, const std::map<std::string, Found>& tensors) {
  const Arch& a = model.arch();
  const Site site{a.stack, -1, Part::pooler};
  if (!a.lm || !head_begins_with_pooler(a)) return;
  for (const char* parameter : {"weight", "bias"})
    if (!tensors.contains(hf_name(a, site, parameter))) return;
  model.pooler.emplace(model.build(), site, a.width, a.width, true);
  model.pooler->each([&](Weight& w) {
    const Found& at = tensors.at(hf_name(a, site, w.parameter().name));
    check(at.info().shape == w.value().shape() && is_floating(at.info().dtype),
          "{}: is {} {}; need a floating type and {}", at.name, name_of(at.info().dtype),
          at.info().shape, w.value().shape());
    Array values = Array::empty(w.value().shape());
    at.file->read_f32(at.name, values);
    w.parameter().value = Tensor(values.to(w.value().dtype()));
  });
}

// --- writing ------------------------------------------------------------------------------------

void check_done(const fs::path& path, const char* operation, const std::error_code& error) {
  check(!error, "{}: cannot {}: {}", path.string(), operation, error.message());
}

// Files written out of sight, in a folder inside the one they are for.
class Staging {
 public:
  explicit Staging(const fs::path& folder) : folder_(folder), hidden_(folder / ".saving") {
    std::error_code error;
    fs::create_directories(folder_, error);
    check_done(folder_, "make the folder", error);
    fs::remove_all(hidden_, error);  // of a process that was killed
    fs::create_directory(hidden_, error);
    check_done(hidden_, "make the folder", error);
  }
  ~Staging() {
    std::error_code ignored;
    fs::remove_all(hidden_, ignored);
  }
  fs::path operator/(const char* name) const { return hidden_ / name; }
  const fs::path& path() const { return hidden_; }

  // `last` is what makes the folder whole: it goes first and comes last, and the disk sees each
  // step before the next.
  void put_in_place(const char* last) {
    std::error_code error;
    fs::remove(folder_ / last, error);
    check_done(folder_ / last, "remove the file", error);
    flush();
    for (const auto& entry : fs::directory_iterator(hidden_))
      if (entry.path().filename() != last) move(entry.path());
    flush();
    move(hidden_ / last);
    flush();
  }

 private:
  void move(const fs::path& file) {
    std::error_code error;
    fs::rename(file, folder_ / file.filename(), error);
    check_done(folder_ / file.filename(), "put the new file in place", error);
  }
  void flush() {
    const int file = ::open(folder_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0) return;
    ::fsync(file);  // not all file systems can; then their own order has to do
    ::close(file);
  }

  fs::path folder_, hidden_;
};

void write_weights(Model& model, const fs::path& path, FileDtype dtype, bool head) {
  SafetensorsWriter writer;
  const Family& family = family_named(model.arch().family);
  // A body's files do not repeat what it is.
  const auto named = [&](const std::string& name) {
    const bool body = !model.arch().lm && !head && name.starts_with(family.prefix);
    return body ? name.substr(family.prefix.size()) : name;
  };
  for (const Stored& tensor : stored_tensors(model, head)) {
    const std::vector<float> values = joined(tensor);
    if (dtype == FileDtype::f16)
      for (const float x : values)
        check(!std::isfinite(x) || std::abs(x) < 65520, "{}: {} holds {}, too large for an f16",
              path.parent_path().parent_path().string(), tensor.name, x);
    writer.add(named(tensor.name), dtype, tensor.shape, values);
  }
  for (const ExtraName& extra : family.extras)
    if (extra.values) {
      const Array values = extra.values(model.arch());
      if (!values.defined()) continue;
      for (const std::string& name : names_of(extra, model.arch().layers))
        writer.add(named(name), values);
    }
  writer.write(path);
}

// Whether a tensor is in the folder's files, whatever stands before its name.
bool has_tensor(const fs::path& folder, std::string_view name) {
  const FolderTensors found(folder, {}, {});
  return std::ranges::any_of(found.tensors, [&](const auto& t) { return t.first.ends_with(name); });
}

const char* torch_name(FileDtype dtype) {
  if (dtype == FileDtype::f32) return "float32";
  if (dtype == FileDtype::f16) return "float16";
  if (dtype == FileDtype::bf16) return "bfloat16";
  fail("save_model: weights are saved as F32, F16 or BF16, not {}", name_of(dtype));
}

}  // namespace

Arch load_arch(const fs::path& folder) {
  Arch arch = read_config(folder / kConfig);
  // What config.json leaves to the weights to say: whether a body was saved with its matrix for
  // pooling, and whether a T5 of the later kind has a vocabulary head of its own.
  if (fs::exists(folder / kWeights) || fs::exists(folder / kIndex)) {
    arch.pooler = arch.pooler && has_tensor(folder, "pooler.dense.weight");
    if (arch.crosses() && !arch.scaled_lm) {
      const bool own = has_tensor(folder, "lm_head.weight");
      check(own || arch.tied,
            "{}: lm_head.weight is missing; config.json says by tie_word_embeddings that it is a "
            "matrix of its own",
            folder.string());
      arch.tied = !own;
    }
  }
  fill_ids(arch, folder);
  return arch;
}

std::unique_ptr<Model> load_model(const fs::path& folder, Dtype dtype) {
  const Arch arch = load_arch(folder);
  const Family& family = family_named(arch.family);
  // Shapes alone: no memory is asked for before the files agree, and little after.
  auto model = std::make_unique<Model>(arch, Build{dtype, true, 0, false});
  add_saved_head(*model, folder / kConfig);
  const std::vector<Stored> expected = stored_tensors(*model, model->has_head());
  const FolderTensors found(folder, family, expected);
  const auto wrong = differences(expected, family, found.tensors, arch.layers);
  check(wrong.empty(), "{}: its tensors are not those of its config.json: {}", folder.string(),
        fmt::join(wrong, "; "));
  for (const Stored& tensor : expected) {
    const Found& at = found.tensors.at(tensor.name);
    split(tensor, at.file->array(at.name), dtype);
  }
  if (model->has_head())  // it trains with every method: its memory is its own
    model->head().each(
        [](Weight& w) { w.parameter().value = Tensor(w.value().value().own_copy()); });
  read_pooler(*model, found.tensors);
  model->set_build({dtype, true, 0});  // what is added from now on is drawn
  return model;
}

void save_model(Model& model, const fs::path& folder, FileDtype dtype, const Tokenizer* tokenizer,
                const fs::path& base) {
  const Arch& arch = model.arch();
  const auto head = head_to_save(model);
  const std::string config = config_text(arch, torch_name(dtype), head ? &*head : nullptr);
  check(!tokenizer || tokenizer->size() <= arch.vocab,
        "{}: the tokenizer has {} tokens, the model's vocabulary only {}", folder.string(),
        tokenizer ? tokenizer->size() : 0, arch.vocab);
  Staging staging(folder);
  if (tokenizer) {
    tokenizer_beside(arch, *tokenizer).save(staging / kTokenizer);
    write_file_atomically(staging / kTokenizerConfig,
                          tokenizer_config(arch, *tokenizer, head && arch.token_types > 1));
  }
  if (!base.empty()) {
    keep_generation(base, staging.path());
    keep_tokenizer_config(base, staging.path());
  }
  write_weights(model, staging / kWeights, dtype, head.has_value());
  write_file_atomically(staging / kConfig, config);
  staging.put_in_place(kConfig);
}

}  // namespace graft
