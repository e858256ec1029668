#include "nn/models/generation.h"

#include <climits>
#include <nlohmann/json.hpp>
#include <utility>

#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "tensor/error.h"

namespace graft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const char* const kFile = "generation_config.json";

// Keys and the values at which they change no text. transformers' GenerationConfig has them.
const std::vector<std::pair<const char*, json>>& neutral() {
  static const std::vector<std::pair<const char*, json>> all{
      {"do_sample", false},
      {"num_beams", 1},
      {"repetition_penalty", 1.0},
      {"length_penalty", 1.0},
      {"diversity_penalty", 0.0},
      {"no_repeat_ngram_size", 0},
      {"encoder_no_repeat_ngram_size", 0},
      {"min_length", 0},
      {"min_new_tokens", 0},
      {"bad_words_ids", json()},
      {"suppress_tokens", json()},
      {"begin_suppress_tokens", json()},
      {"sequence_bias", json()},
      {"exponential_decay_length_penalty", json()},
      {"encoder_repetition_penalty", 1.0},
      {"guidance_scale", json()},
      {"penalty_alpha", json()},
      {"stop_strings", json()},
      {"token_healing", false},
      {"watermarking_config", json()},
      {"force_words_ids", json()},
      {"constraints", json()},
      {"dola_layers", json()},
      {"forced_decoder_ids", json()},
      {"forced_bos_token_id", json()},
      {"forced_eos_token_id", json()}};
  return all;
}

std::vector<int> ids_of(const std::string& file, const json& value) {
  std::vector<int> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    check(id.is_number_integer() && id >= -1 && id <= INT_MAX, "{}: eos_token_id is {}; need ids",
          file, value.dump());
    if (id >= 0) ids.push_back(id);  // -1 says that there is none, as in config.json
  }
  return ids;
}

}  // namespace

GenerationFile read_generation(const fs::path& folder) {
  const fs::path own = folder / kFile, file = fs::exists(own) ? own : folder / "config.json";
  const json values = parse_strict(file.string(), read_file(file));
  check(values.is_object(), "{}: need an object", file.string());
  GenerationFile found;
  if (const auto end = values.find("eos_token_id"); end != values.end() && !end->is_null())
    found.stop = ids_of(file.string(), *end);
  for (const auto& [key, calm] : neutral()) {
    const auto at = values.find(key);
    if (at == values.end() || at->is_null() || *at == calm || (at->is_array() && at->empty()))
      continue;
    found.settings.push_back(fmt::format("{}={}", key, at->dump()));
  }
  return found;
}

void keep_generation(const fs::path& from, const fs::path& to) {
  if (fs::exists(from / kFile)) {
    (void)read_generation(from);  // what cannot be read is not handed on
    write_file_atomically(to / kFile, read_file(from / kFile));
    return;
  }
  // Without one transformers takes these from config.json, where a saved model's has no place for
  // them, and none from there once there is a file.
  const GenerationFile says = read_generation(from);
  if (says.stop.size() <= 1 && says.settings.empty()) return;
  const std::string name = (from / "config.json").string();
  const json config = parse_strict(name, read_file(name));
  json kept;
  for (const char* key :
       {"bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "temperature",
        "top_p", "top_k", "early_stopping", "max_length", "max_new_tokens"})
    if (config.contains(key) && !config[key].is_null()) kept[key] = config[key];
  for (const auto& [key, calm] : neutral())
    if (config.contains(key) && !config[key].is_null()) kept[key] = config[key];
  write_file_atomically(to / kFile, kept.dump(2) + "\n");
}

}  // namespace graft
