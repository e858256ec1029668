#include "nn/text/tokenizer_json.h"

#include <climits>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>

#include "nn/files/atomic.h"
#include "nn/text/byte_level.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

// Parses, and refuses a key that an object has twice; the library would keep one of the two without
// a word.
json parse_strict(const std::filesystem::path& path) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key)
      check(keys.back().insert(parsed.get<std::string>()).second, "{}: key '{}' is there twice",
            path.string(), parsed.get<std::string>());
    return true;
  };
  try {
    return json::parse(read_file(path), watch);
  } catch (const json::exception& error) {
    fail("{}: not JSON: {}", path.string(), error.what());
  }
}

// One object of the file and the name it goes by in messages; every key must be asked for before
// done().
class Entry {
 public:
  Entry(std::string name, const json& value) : name_(std::move(name)), value_(value) {
    check(value.is_object(), "{} is {}; need an object", name_, shown(value));
  }

  const json* find(const std::string& key) {
    asked_.insert(key);
    const auto at = value_.find(key);
    return at == value_.end() || at->is_null() ? nullptr : &*at;
  }
  const json& at(const std::string& key) {
    const json* found = find(key);
    check(found != nullptr, "{} has no {}", name_, key);
    return *found;
  }
  bool flag(const std::string& key, bool otherwise) {
    const json* found = find(key);
    check(found == nullptr || found->is_boolean(), "{}: {} is not true or false", name_, key);
    return found == nullptr ? otherwise : found->get<bool>();
  }
  void need_null(const std::string& key) {
    const json* found = find(key);
    check(found == nullptr, "{}: {} is {}; this version reads only null", name_, key,
          found == nullptr ? "" : shown(*found));
  }
  void need(const std::string& key, const json& value, const json& otherwise) {
    const json* found = find(key);
    check((found == nullptr ? otherwise : *found) == value,
          "{}: {} is {}; this version reads only {}", name_, key,
          found == nullptr ? "absent" : shown(*found), value.dump());
  }
  std::string inside(const std::string& key) const { return name_ + ": " + key; }
  void done() const {
    for (const auto& item : value_.items())
      check(asked_.contains(item.key()), "{}: unknown key {}", name_, item.key());
  }

 private:
  static std::string shown(const json& value) {
    if (value.is_object() && value.contains("type")) return value["type"].dump();
    return value.is_structured() ? value.type_name() : value.dump();
  }

  std::string name_;
  const json& value_;
  std::set<std::string> asked_;
};

bool read_byte_level(const std::string& name, const json& value) {
  Entry entry(name, value);
  entry.need("type", "ByteLevel", nullptr);
  const bool add_prefix_space = entry.flag("add_prefix_space", true);
  entry.flag("trim_offsets", true);  // offsets only
  entry.need("use_regex", true, true);
  entry.done();
  return add_prefix_space;
}

SpecialToken read_special(const std::string& name, const json& value) {
  Entry entry(name, value);
  SpecialToken token;
  const json &content = entry.at("content"), &id = entry.at("id");
  check(content.is_string() && !content.get_ref<const std::string&>().empty(),
        "{}: content is not a string of one character or more", name);
  check(id.is_number_unsigned() && id.get<std::uint64_t>() <= INT_MAX,
        "{}: id is {}; need 0 or more", name, id.dump());
  token.content = content.get<std::string>();
  token.id = id.get<int>();
  token.special = entry.flag("special", false);
  token.normalized = entry.flag("normalized", true);
  token.lstrip = entry.flag("lstrip", false);
  token.rstrip = entry.flag("rstrip", false);
  entry.need("single_word", false, false);
  entry.done();
  return token;
}

// Spellings by id; a special token that model.vocab leaves out comes after it.
std::vector<std::string> read_vocabulary(const std::string& file, const json& vocab,
                                         const std::vector<SpecialToken>& specials) {
  check(vocab.is_object(), "{}: model.vocab is not an object", file);
  std::size_t count = vocab.size();
  for (const SpecialToken& token : specials) count += !vocab.contains(token.content);
  std::vector<std::string> spellings(count);
  std::vector<bool> taken(count);
  const auto place = [&](const std::string& token, std::size_t id) {
    check(id < count, "{}: model.vocab: '{}' has id {}; {} tokens need 0..{}", file, token, id,
          count, count - 1);
    check(!taken[id], "{}: model.vocab: '{}' and '{}' both have id {}", file, spellings[id], token,
          id);
    taken[id] = true;
    spellings[id] = token;
  };
  for (const auto& item : vocab.items()) {
    check(item.value().is_number_unsigned(), "{}: model.vocab: '{}' has id {}; need 0 or more",
          file, item.key(), item.value().dump());
    place(item.key(), item.value().get<std::size_t>());
  }
  for (const SpecialToken& token : specials) {
    const auto known = vocab.find(token.content);
    if (known == vocab.end())
      place(token.content, std::size_t(token.id));
    else
      check(*known == token.id, "{}: added_tokens gives '{}' id {}, model.vocab gives it {}", file,
            token.content, token.id, known->dump());
  }
  return spellings;
}

std::pair<std::string, std::string> read_merge(const std::string& name, const json& merge) {
  if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string())
    return {merge[0].get<std::string>(), merge[1].get<std::string>()};
  check(merge.is_string(), "{} is {}; need \"a b\" or [\"a\", \"b\"]", name, merge.dump());
  const std::string text = merge.get<std::string>();
  const std::size_t space = text.find(' ');
  check(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
        "{} is '{}'; need two tokens and one space between them", name, text);
  return {text.substr(0, space), text.substr(space + 1)};
}

void read_model(const std::string& file, const json& value, BpeModel& model) {
  Entry entry(file + ": model", value);
  entry.need("type", "BPE", "BPE");
  entry.need_null("dropout");
  entry.find("unk_token");  // never used: every byte is a token
  entry.find("fuse_unk");
  entry.need("continuing_subword_prefix", "", "");
  entry.need("end_of_word_suffix", "", "");
  entry.need("byte_fallback", false, false);
  entry.need("ignore_merges", false, false);
  const json &vocab = entry.at("vocab"), &merges = entry.at("merges");
  check(merges.is_array(), "{}: model.merges is not an array", file);
  entry.done();

  const std::vector<std::string> spellings = read_vocabulary(file, vocab, model.specials);
  std::unordered_map<std::string, int> ids;
  std::vector<bool> is_special(spellings.size());
  for (const SpecialToken& token : model.specials) is_special[std::size_t(token.id)] = true;
  for (std::size_t i = 0; i < spellings.size(); ++i) {
    ids.emplace(spellings[i], int(i));
    const auto bytes = unspell(spellings[i]);
    check(is_special[i] || (bytes && !bytes->empty()),
          "{}: model.vocab: '{}' is no byte-level token and not in added_tokens", file,
          spellings[i]);
    model.tokens.push_back(is_special[i] ? spellings[i] : *bytes);
  }
  for (std::size_t i = 0; i < merges.size(); ++i) {
    const std::string name = fmt::format("{}: model.merges[{}]", file, i);
    const auto [left, right] = read_merge(name, merges[i]);
    for (const std::string& token : {left, right, left + right})
      check(ids.contains(token), "{} ('{}' '{}'): model.vocab has no '{}'", name, left, right,
            token);
    model.merges.emplace_back(ids[left], ids[right]);
  }
}

ordered_json default_post_processor(const BpeModel& model) {
  int cls = -1, sep = -1;
  for (const SpecialToken& token : model.specials) {
    if (token.content == "[CLS]") cls = token.id;
    if (token.content == "[SEP]") sep = token.id;
  }
  if (cls < 0 || sep < 0)
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", false},
            {"use_regex", true}};
  const auto special = [](const char* id, int type) -> ordered_json {
    return {{"SpecialToken", {{"id", id}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) -> ordered_json {
    return {{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  const auto entry = [](const char* token, int id) -> ordered_json {
    return {{"id", token},
            {"ids", ordered_json::array({id})},
            {"tokens", ordered_json::array({token})}};
  };
  ordered_json made{{"type", "TemplateProcessing"}};
  made["single"] = ordered_json::array({special("[CLS]", 0), text("A", 0), special("[SEP]", 0)});
  made["pair"] = made["single"];
  made["pair"].push_back(text("B", 1));
  made["pair"].push_back(special("[SEP]", 1));
  made["special_tokens"] = {{"[CLS]", entry("[CLS]", cls)}, {"[SEP]", entry("[SEP]", sep)}};
  return made;
}

ordered_json model_json(const BpeModel& model) {
  std::vector<std::string> spellings;
  for (const std::string& token : model.tokens) spellings.push_back(spell(token));
  for (const SpecialToken& token : model.specials) spellings[std::size_t(token.id)] = token.content;
  ordered_json vocab = ordered_json::object(), merges = ordered_json::array();
  // emplace_back, because an insertion by key would search all keys before it.
  auto& entries = vocab.get_ref<ordered_json::object_t&>();
  for (std::size_t i = 0; i < spellings.size(); ++i) entries.emplace_back(spellings[i], int(i));
  for (const auto& [left, right] : model.merges)
    merges.push_back(
        ordered_json::array({spellings[std::size_t(left)], spellings[std::size_t(right)]}));
  ordered_json made{{"type", "BPE"}};
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"})
    made[key] = nullptr;
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) made[key] = false;
  made["vocab"] = std::move(vocab);
  made["merges"] = std::move(merges);
  return made;
}

}  // namespace

BpeModel read_tokenizer_json(const std::filesystem::path& path) {
  const std::string file = path.string();
  const json root = parse_strict(path);
  Entry entry(file, root);
  entry.need("version", "1.0", "1.0");
  entry.need_null("truncation");
  entry.need_null("padding");
  entry.need_null("normalizer");
  BpeModel model;
  model.add_prefix_space =
      read_byte_level(entry.inside("pre_tokenizer"), entry.at("pre_tokenizer"));
  read_byte_level(entry.inside("decoder"), entry.at("decoder"));
  if (const json* post = entry.find("post_processor")) {
    const std::string type = post->is_object() ? post->value("type", "none") : "none";
    check(type == "ByteLevel" || type == "TemplateProcessing" || type == "RobertaProcessing",
          "{}: post_processor is {}; this version knows ByteLevel, TemplateProcessing and "
          "RobertaProcessing",
          file, type);
    model.post_processor = post->dump();
  } else {
    model.post_processor = "null";
  }
  if (const json* added = entry.find("added_tokens")) {
    check(added->is_array(), "{}: added_tokens is not an array", file);
    std::set<std::string> seen;
    for (const json& token : *added) {
      model.specials.push_back(
          read_special(fmt::format("{}: added_tokens[{}]", file, model.specials.size()), token));
      check(seen.insert(model.specials.back().content).second, "{}: added_tokens has '{}' twice",
            file, model.specials.back().content);
    }
  }
  read_model(file, entry.at("model"), model);
  entry.done();
  return model;
}

void write_tokenizer_json(const BpeModel& model, const std::filesystem::path& path) {
  ordered_json added = ordered_json::array();
  for (const SpecialToken& token : model.specials)
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", token.lstrip},
                     {"rstrip", token.rstrip},
                     {"normalized", token.normalized},
                     {"special", token.special}});
  ordered_json root{{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}};
  root["added_tokens"] = std::move(added);
  root["normalizer"] = nullptr;
  root["pre_tokenizer"] = {{"type", "ByteLevel"},
                           {"add_prefix_space", model.add_prefix_space},
                           {"trim_offsets", true},
                           {"use_regex", true}};
  root["post_processor"] = model.post_processor.empty() ? default_post_processor(model)
                                                        : ordered_json::parse(model.post_processor);
  root["decoder"] = {{"type", "ByteLevel"},
                     {"add_prefix_space", true},
                     {"trim_offsets", true},
                     {"use_regex", true}};
  root["model"] = model_json(model);
  write_file_atomically(path, root.dump(2) + "\n");
}

}  // namespace graft
