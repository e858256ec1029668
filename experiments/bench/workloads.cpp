#include "experiments/bench/workloads.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "experiments/bench/trainer.h"
#include "experiments/cli/main.h"
#include "experiments/runs/encoded.h"
#include "experiments/runs/named_task.h"
#include "nn/files/strict_json.h"
#include "nn/models/folder.h"
#include "nn/models/heads.h"
#include "nn/models/presets.h"
#include "peft/files.h"
#include "peft/peft_folder.h"
#include "tensor/philox.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using cli::base_folder;
using nlohmann::json;

constexpr std::uint32_t kSeed = 5;
constexpr int kMaxTokens = 128;

const std::string& one_of(const std::string& name, const std::vector<std::string>& names,
                          const char* what) {
  const auto at = std::ranges::find(names, name);
  check(at != names.end(), "bench: no {} is called '{}'; there are {}", what, name,
        fmt::join(names, ", "));
  return *at;
}

bool is_llama(const Workload& w) { return w.base.starts_with("llama"); }
bool writes(const Workload& w) { return w.base == "gpt2" || is_llama(w); }

TaskData supersense() { return task_named("supersense"); }

// The base with the family's head on it, so that the folder holds all first weights there are.
void write_model(const Workload& w, const fs::path& folder) {
  if (fs::exists(folder / "config.json")) return;
  const bool shipped = w.base == "encoder";
  const auto model = shipped ? load_model(base_folder("encoder"))
                             : std::make_unique<Model>(arch_of(w), Build{.seed = kSeed});
  if (!writes(w)) {
    const std::vector<std::string> labels =
        shipped ? supersense().labels : std::vector<std::string>{"negative", "positive"};
    model->set_head(start_family_head({.seed = kSeed}, *model, labels).head);
  }
  save_model(*model, folder, shipped ? FileDtype::f16 : FileDtype::f32);
}

// --- batches ------------------------------------------------------------------------------------

struct Row {
  std::vector<std::int32_t> token;
  std::int32_t label = 0;
};

// Sequences with a rule to learn: each token is the one before plus a step of the sequence's own.
Row counting_row(int number, int length, int vocab) {
  const Key key{kSeed, static_cast<std::uint32_t>(number)};
  const auto draw = [&](std::uint64_t i, int below) {
    return static_cast<int>(uniform(key, stream_id("bench tokens"), i) * below);
  };
  const int first = draw(0, vocab), step = 1 + draw(1, 50);
  Row row;
  for (int i = 0; i < length; ++i)
    row.token.push_back(static_cast<std::int32_t>((first + std::int64_t{i} * step) % vocab));
  row.label = number % 2;
  return row;
}

// Lengths of real sentences with their marks; what the tokens are makes no difference to the time.
std::vector<int> sentence_lengths(const TextSource& from, std::size_t count) {
  const TaskData task = task_named(from.sst2.empty() ? "acceptability_wn" : from.sst2);
  const Tokenizer tokenizer =
      Tokenizer::load(from.tokenizer.empty() ? base_folder("encoder") : fs::path(from.tokenizer));
  const auto order = shuffled(task.train.size(), kSeed, 0);
  std::vector<int> lengths;
  for (std::size_t i = 0; i < count; ++i) {
    const Example& e = task.train[static_cast<std::size_t>(order[i % order.size()])];
    lengths.push_back(std::min<int>(kMaxTokens, int(tokenizer.encode(e.a).size()) + 2));
  }
  return lengths;
}

std::vector<Row> supersense_rows(const fs::path& model, std::size_t count) {
  EncodeSpec spec{.max_tokens = kMaxTokens, .dev_rows = 1, .test_rows = 1};
  const EncodedTask task = encode_task(supersense(), Tokenizer::load(base_folder("encoder")),
                                       load_arch(model), encode_for("family", spec));
  const auto order = shuffled(task.train.size(), kSeed, 0);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < count; ++i) {
    const EncodedExample& e = task.train[static_cast<std::size_t>(order[i % order.size()])];
    rows.push_back({e.token, e.label});
  }
  return rows;
}

std::vector<Row> rows_of(const Workload& w, const fs::path& model, std::size_t count,
                         const TextSource& from) {
  if (w.base == "encoder") return supersense_rows(model, count);
  const int vocab = load_arch(model).vocab;
  const std::vector<int> lengths =
      w.length > 0 ? std::vector<int>(count, w.length) : sentence_lengths(from, count);
  std::vector<Row> rows;
  for (std::size_t i = 0; i < count; ++i) rows.push_back(counting_row(int(i), lengths[i], vocab));
  return rows;
}

json batches_json(const Workload& w, const std::vector<Row>& rows) {
  json all = json::array();
  const auto each = static_cast<std::size_t>(w.sequences);
  for (std::size_t at = 0; at < rows.size(); at += each) {
    json tokens = json::array(), labels = json::array();
    for (std::size_t i = at; i < at + each; ++i)
      tokens.push_back(rows[i].token), labels.push_back(rows[i].label);
    all.push_back({{"token", tokens}, {"label", labels}});
  }
  return all;
}

Batch batch_of(const json& from, bool language, std::uint32_t& example) {
  Batch b;
  b.label = from.at("label").get<std::vector<std::int32_t>>();
  for (const json& tokens : from.at("token")) {
    const auto row = tokens.get<std::vector<std::int32_t>>();
    b.token.insert(b.token.end(), row.begin(), row.end());
    b.length.push_back(static_cast<int>(row.size()));
    b.example.push_back(example++);
    if (!language) continue;
    b.token_label.insert(b.token_label.end(), row.begin() + 1, row.end());
    b.token_label.push_back(-1);
  }
  return b;
}

// The adapter's values as they start, and the head's. Returns whether PEFT has the method.
bool write_first_values(const Cell& cell, const Trainer& trainer, const fs::path& model,
                        const fs::path& folder) {
  const Parameters& all = trainer.parameters();
  save_adapter(folder / "values", cell.spec, all, {});
  const std::string method = cell.spec.substr(0, cell.spec.find(':'));
  const bool in_peft =
      std::ranges::any_of(peft_methods(), [&](const PeftMethod& m) { return m.method == method; });
  const bool language = writes(cell.workload);
  if (in_peft)
    write_peft_folder(folder / "peft",
                      {trainer.model().arch(), cell.spec, all, language ? "" : "family", "mean",
                       language, model.string(), saved_pooler(trainer.model())});
  return in_peft;
}

}  // namespace

const std::vector<Workload>& workloads() {
  static const std::vector<Workload> all{
      {"gpt2", "gpt2", "GPT-2 small's shape, 4 x 256 tokens", 4, 256},
      {"bert", "bert", "BERT base's shape, 32 sentences", 32, 0},
      {"encoder-8", "encoder", "the shipped encoder on supersense, 8 texts", 8, 0},
      {"encoder-32", "encoder", "the shipped encoder on supersense, 32 texts", 32, 0},
      {"llama", "llama", "LLaMA's shape, 16 x 1024, 2048 tokens", 1, 2048},
      {"llama-1b", "llama-1b", "LLaMA's shape, 16 x 2048, 4 x 2048 tokens", 4, 2048, true}};
  return all;
}

const Workload& workload_named(const std::string& name) {
  std::vector<std::string> names;
  for (const Workload& w : workloads()) names.push_back(w.name);
  one_of(name, names, "workload");
  return *std::ranges::find(workloads(), name, &Workload::name);
}

Arch arch_of(const Workload& w) {
  if (w.base == "encoder") return load_arch(base_folder("encoder"));
  Arch a = arch_named(w.base == "bert" ? "bert-base" : is_llama(w) ? "llama-7b" : "gpt2");
  if (is_llama(w)) a.layers = 16, a.positions = 4096;
  if (w.base == "llama") a.width = 1024, a.heads = a.kv_heads = 16, a.hidden = 2816;
  // As LLaMA 3.2 1B but for its vocabulary: heads of 64, four to a key head.
  if (w.base == "llama-1b") a.width = 2048, a.heads = 32, a.kv_heads = 8, a.hidden = 8192;
  a.dropout = a.attention_dropout = a.head_dropout = 0;  // no two generators draw alike
  return w.base == "bert" ? without_lm_head(a) : a;
}

const std::vector<std::string>& method_names() {
  static const std::vector<std::string> all{"full",   "lora-qv", "lora-all",      "houlsby",
                                            "prefix", "prompt",  "llama-adapter", "bitfit"};
  return all;
}

Cell cell_named(const std::string& workload, const std::string& method) {
  const Workload& w = workload_named(workload);
  one_of(method, method_names(), "method");
  // Low enough for two sides that round otherwise to stay together: at 1e-3 LoRA on all of BERT's
  // matrices has grown a difference of 3e-7 to 1e-4 after 20 steps.
  Cell cell{w, method, "", "", method == "full" ? 1e-4 : 3e-4};
  // PEFT adapts GPT-2's c_attn, which is q, k and v in one, and with one A: as many numbers as q
  // and v alone have with two.
  const bool fused = w.base == "gpt2";
  if (method == "full") cell.spec = writes(w) ? "full:vocabulary=yes" : "full";
  if (method == "lora-qv")
    cell.spec = fused ? "lora:r=8,alpha=16,on=q+k+v,share=qkv" : "lora:r=8,alpha=16,on=q+v";
  if (method == "lora-all")
    cell.spec = fused ? "lora:r=8,alpha=16,on=all,share=qkv" : "lora:r=8,alpha=16,on=all";
  if (method == "houlsby") cell.spec = "houlsby:m=64";
  if (method == "prefix") cell.spec = "prefix:length=20";
  if (method == "prompt")
    cell.spec = writes(w) ? "prompt:length=20" : "prompt:length=20,pooled=yes";
  if (method == "llama-adapter") cell.spec = "llama_adapter:length=10,gate=linear,layers=top8";
  if (method == "bitfit") cell.spec = "bitfit";
  if (method == "prefix" && w.base == "encoder") cell.why_not = "transformers' esm takes no prefix";
  if (method == "prompt" && w.base == "encoder")
    cell.why_not =
        "transformers' esm leaves out its norm of the embeddings where a prompt is put in";
  if (method == "llama-adapter" && !is_llama(w))
    cell.why_not = "PEFT's LLaMA-Adapter is for LLaMA (its GPT-2 lacks the output matrix there)";
  if (method == "bitfit" && is_llama(w)) cell.why_not = "LLaMA has no biases";
  return cell;
}

fs::path prepare(const Cell& cell, const fs::path& out, int batches, const TextSource& from) {
  check(cell.why_not.empty(), "bench: {} with {}: {}", cell.workload.name, cell.method,
        cell.why_not);
  const Workload& w = cell.workload;
  const fs::path model = fs::absolute(out / "models" / w.base);
  const fs::path folder = out / "cells" / (w.name + "-" + cell.method);
  write_model(w, model);
  fs::remove_all(folder);
  fs::create_directories(folder);
  const auto rows =
      rows_of(w, model, static_cast<std::size_t>(batches) * std::size_t(w.sequences), from);
  write_file_atomically(folder / "batches.json", batches_json(w, rows).dump());
  Trainer trainer(load_model(model), cell.spec);
  const bool in_peft = write_first_values(cell, trainer, model, folder);
  const json config{{"workload", w.name},
                    {"about", w.about},
                    {"method", cell.method},
                    {"spec", cell.spec},
                    {"family", trainer.model().arch().family},
                    {"language", writes(w)},
                    {"model", model.string()},
                    {"peft", in_peft},
                    {"rate", cell.rate}};
  write_file_atomically(folder / "cell.json", config.dump(1) + "\n");
  return folder;
}

PreparedCell read_cell(const fs::path& folder) {
  const auto read = [&](const char* name) {
    return parse_strict((folder / name).string(), read_file(folder / name));
  };
  const json config = read("cell.json");
  PreparedCell cell{
      config.at("model").get<std::string>(), config.at("spec"), config.at("rate"), {}};
  std::uint32_t example = 0;
  for (const json& batch : read("batches.json"))
    cell.batches.push_back(batch_of(batch, config.at("language"), example));
  return cell;
}

}  // namespace graft
