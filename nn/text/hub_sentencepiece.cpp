// spiece.model (T5) and tokenizer.model (LLaMA) as a tokenizer.json.
#include <algorithm>
#include <cstdint>
#include <set>

#include "nn/files/atomic.h"
#include "nn/text/charsmap.h"
#include "nn/text/hub_json.h"
#include "nn/text/sentencepiece.h"
#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kMark = "\u2581";

Json metaspace(const char* scheme, bool split) {
  return {
      {"type", "Metaspace"}, {"replacement", kMark}, {"prepend_scheme", scheme}, {"split", split}};
}

// Sentencepiece's own BPE joins whichever pair makes the piece of least id: as merges, all ways to
// make a piece of two, by that piece's id and then by the length of the left one.
Json merges_of(const std::vector<SentencePiece>& pieces, const HubIds& ids) {
  Json merges = Json::array();
  for (std::size_t id = 0; id < pieces.size(); ++id) {
    const std::string& piece = pieces[id].text;
    if (ids.at(piece) != int(id)) continue;
    for (std::size_t cut = char_size(piece[0]); cut < piece.size(); cut += char_size(piece[cut])) {
      const std::string left = piece.substr(0, cut), right = piece.substr(cut);
      if (ids.contains(left) && ids.contains(right)) merges.push_back(Json::array({left, right}));
    }
  }
  return merges;
}

// The pieces that are met in a text only as a whole: control symbols, and the user's own.
void add_controls(const SentencePieceModel& model, std::vector<SpecialToken>& specials) {
  std::set<std::string> known;
  for (const SpecialToken& token : specials) known.insert(token.content);
  for (std::size_t id = 0; id < model.pieces.size(); ++id) {
    const SentencePiece& piece = model.pieces[id];
    const bool control = piece.type == SentencePiece::control;
    if (!control && piece.type != SentencePiece::user_defined) continue;
    if (!known.insert(piece.text).second) continue;
    specials.push_back({piece.text, int(id), control, false, false, false, false});
  }
  std::ranges::sort(specials, {}, &SpecialToken::id);
}

HubIds ids_of(const SentencePieceModel& model) {
  HubIds ids;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) ids[model.pieces[i].text] = int(i);
  return ids;
}

Json read_llama(const std::string& name, const SentencePieceModel& model, const HubConfig& config) {
  check(model.type == SentencePieceModel::bpe, "{}: its model_type is {}; LLaMA's need BPE's, {}",
        name, model.type, int(SentencePieceModel::bpe));
  HubIds ids = ids_of(model);
  const Json vocabulary = vocab_json(ids);
  const HubSpecials& defaults = class_specials("Llama");
  std::vector<SpecialToken> specials = config.specials(defaults, ids);
  add_controls(model, specials);
  Json root = new_tokenizer_json(specials);
  const Json parts = llama_parts(config);
  for (const char* key : {"pre_tokenizer", "decoder", "model"}) root[key] = parts[key];
  root["post_processor"] = bos_eos_template(config, defaults, ids);
  root["model"]["vocab"] = vocabulary;
  root["model"]["merges"] = merges_of(model.pieces, ids_of(model));
  return root;
}

Json read_t5(const std::string& name, const SentencePieceModel& model, const HubConfig& config) {
  check(model.type == SentencePieceModel::unigram && model.pieces.size() > 2,
        "{}: its model_type is {}; T5's need Unigram's, {}, and three pieces or more", name,
        model.type, int(SentencePieceModel::unigram));
  constexpr int kMostExtra = 10000;
  const json* wanted = config.find("extra_ids");
  check(wanted == nullptr ||
            (wanted->is_number_unsigned() && wanted->get<std::uint64_t>() <= kMostExtra),
        "{}: extra_ids is {}; need 0..{}", config.name(), wanted ? shown(*wanted) : "", kMostExtra);
  HubIds ids = ids_of(model);
  Json vocabulary = Json::array();
  for (const SentencePiece& piece : model.pieces)
    vocabulary.push_back(Json::array({piece.text, double(piece.score)}));
  std::vector<SpecialToken> extra;
  for (int i = wanted ? wanted->get<int>() : 100; i-- > 0;) {
    const std::string token = fmt::format("<extra_id_{}>", i);
    extra.push_back({token, int(vocabulary.size()), true, false, false, false, false});
    ids[token] = int(vocabulary.size());
    vocabulary.push_back(Json::array({token, 0.0}));
  }
  std::vector<SpecialToken> specials = config.specials(class_specials("T5"), ids);
  for (const SpecialToken& token : extra)
    if (std::ranges::find(specials, token.content, &SpecialToken::content) == specials.end())
      specials.push_back(token);
  add_controls(model, specials);
  Json root = new_tokenizer_json(specials);
  if (!model.charsmap.empty())
    root["normalizer"] = {{"type", "Precompiled"},
                          {"precompiled_charsmap", to_base64(model.charsmap)}};
  root["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers", Json::array({Json{{"type", "WhitespaceSplit"}},
                                                          metaspace("always", true)})}};
  HubTemplate rows(ids);
  const Json single = rows.row({{"$A", 0}, {"</s>", 0}});
  const Json pair = rows.row({{"$A", 0}, {"</s>", 0}, {"$B", 0}, {"</s>", 0}});
  root["post_processor"] = rows.processor(single, pair);
  root["decoder"] = metaspace("always", true);
  root["model"] = {{"type", "Unigram"}, {"unk_id", 2}, {"byte_fallback", false}};
  root["model"]["vocab"] = vocabulary;
  return root;
}

}  // namespace

Json llama_parts(const HubConfig& config) {
  const bool prefix = config.flag("add_prefix_space", true);
  const bool legacy = config.flag("legacy", false);
  Json steps =
      Json::array({Json{{"type", "Replace"}, {"pattern", {{"String", kMark}}}, {"content", " "}},
                   Json{{"type", "ByteFallback"}}, Json{{"type", "Fuse"}}});
  if (prefix) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return {{"normalizer", nullptr},
          {"pre_tokenizer", metaspace(!prefix  ? "never"
                                      : legacy ? "always"
                                               : "first",
                                      false)},
          {"decoder", {{"type", "Sequence"}, {"decoders", steps}}},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false}}}};
}

Json sentencepiece_tokenizer(const fs::path& path, const HubConfig& config) {
  const SentencePieceModel model = read_sentencepiece(path.string(), read_file(path));
  const std::string family = config.family(path.filename() == "spiece.model" ? "T5" : "Llama");
  check(family == "T5" || family == "Llama",
        "{}: tokenizer_class is {}'s; beside {} need T5's or Llama's", config.name(), family,
        path.string());
  return family == "T5" ? read_t5(path.string(), model, config)
                        : read_llama(path.string(), model, config);
}

}  // namespace graft
