#include "nn/text/tokenizer_json.h"

#include <climits>
#include <set>
#include <unordered_map>

#include "nn/text/json_entry.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;

SpecialToken read_special(const std::string& name, const json& value) {
  Entry entry(name, value);
  SpecialToken token;
  token.content = entry.text("content");
  check(!token.content.empty(), "{}: content is empty", name);
  token.id = int(entry.count("id", INT_MAX));
  token.special = entry.flag("special", false);
  token.normalized = entry.flag("normalized", true);
  token.lstrip = entry.flag("lstrip", false);
  token.rstrip = entry.flag("rstrip", false);
  token.single_word = entry.flag("single_word", false);
  entry.done();
  return token;
}

std::vector<SpecialToken> read_specials(const std::string& file, const json& added) {
  const std::string name = file + ": added_tokens";
  check(added.is_array(), "{} is not an array", name);
  std::vector<SpecialToken> tokens;
  std::set<std::string> seen;
  for (const json& token : added) {
    tokens.push_back(read_special(fmt::format("{}[{}]", name, tokens.size()), token));
    check(seen.insert(tokens.back().content).second, "{} has '{}' twice", name,
          tokens.back().content);
  }
  return tokens;
}

// Gives the tokens that the model does not know their places.
void add_specials(const std::string& file, const std::vector<SpecialToken>& specials,
                  Vocabulary& tokens) {
  std::unordered_map<std::string, int> ids;
  for (std::size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = int(i);
  const std::size_t most = 2 * (tokens.size() + specials.size()) + 1000;
  for (const SpecialToken& token : specials) {
    const auto known = ids.find(token.content);
    check(known == ids.end() || known->second == token.id,
          "{}: added_tokens gives '{}' id {}, model.vocab gives it {}", file, token.content,
          token.id, known == ids.end() ? -1 : known->second);
    if (known != ids.end()) continue;
    const auto at = std::size_t(token.id);
    check(at < most, "{}: added_tokens gives '{}' id {}; {} tokens need ids below {}", file,
          token.content, token.id, tokens.size() + specials.size(), most);
    if (at >= tokens.size()) tokens.resize(at + 1);
    check(tokens[at].empty(), "{}: '{}' and '{}' both have id {}", file, tokens[at], token.content,
          token.id);
    tokens[at] = token.content;
  }
}

// How a batch is cut and filled to one length when a program asks for it; transformers sets both
// anew at every call. Here lengths are the caller's business, so that the values change nothing.
void read_batching(Entry& file) {
  if (file.find("truncation")) {
    Entry truncation = file.inner("truncation");
    truncation.text("strategy");
    truncation.text("direction", "Right");  // older files have none
    for (const char* key : {"max_length", "stride"}) truncation.count(key, INT_MAX);
    truncation.done();
  }
  if (!file.find("padding")) return;
  Entry padding = file.inner("padding");
  for (const char* key : {"strategy", "pad_to_multiple_of"}) padding.find(key);
  for (const char* key : {"direction", "pad_token"}) padding.text(key);
  for (const char* key : {"pad_id", "pad_type_id"}) padding.count(key, INT_MAX);
  padding.done();
}

}  // namespace

TokenizerFile read_tokenizer_json(const std::string& name, std::string_view text) {
  const json root = parse_strict(name, text);
  Entry entry(name, root);
  entry.need("version", "1.0", "1.0");
  read_batching(entry);
  TokenizerFile file;
  if (const json* added = entry.find("added_tokens")) file.specials = read_specials(name, *added);
  if (const json* value = entry.find("normalizer"))
    file.normalizer = read_normalizer(entry.inside("normalizer"), *value);
  if (const json* value = entry.find("pre_tokenizer")) {
    PreTokenizerFile read = read_pre_tokenizer(entry.inside("pre_tokenizer"), *value);
    file.cut = std::move(read.cut);
    file.byte_level = read.byte_level;
  }
  if (const json* value = entry.find("decoder"))
    file.decoder = read_decoder(entry.inside("decoder"), *value);
  ModelFile model = read_word_model(entry.inside("model"), entry.at("model"), file.byte_level);
  file.model = std::move(model.model);
  file.tokens = std::move(model.tokens);
  add_specials(name, file.specials, file.tokens);
  if (const json* value = entry.find("post_processor"))
    file.post = read_post_processor(entry.inside("post_processor"), *value, file.tokens.size());
  entry.done();
  return file;
}

}  // namespace graft
