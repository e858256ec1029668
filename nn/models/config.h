// config.json <-> Arch. What a key means is said once: a family's function names its keys in order,
// and the same function reads an Arch from them and writes them from an Arch.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nn/modules.h"

namespace graft {

struct HeadConfig;  // heads.h

// The values of a config.json; throws where it is no object, or has a key twice.
nlohmann::ordered_json config_values(const std::filesystem::path& config_json);

// Reads a folder's config.json. Throws one Error that lists every key that is missing, of the wrong
// kind, or asks for something that these models do not do; a key that this version does not know is
// among them, since it may change the result.
Arch read_config(const std::filesystem::path& config_json);

// The text of a config.json that transformers opens and read_config turns back into `arch`. Throws
// where the family cannot say what `arch` is. dtype: of the weights beside it, as torch calls it.
// With a head it says that the folder has the family's head for whole texts and none over the
// vocabulary.
std::string config_text(const Arch& arch, std::string_view dtype = "float32",
                        const HeadConfig* head = nullptr);

// The values of one config.json, being read or written. A null counts as absent.
class ConfigKeys {
 public:
  ConfigKeys() = default;                                              // writes
  ConfigKeys(std::string file, const nlohmann::ordered_json& values);  // reads

  // A key with a field of its own. T: int, double, bool or Map.
  template <class T>
  void need(const char* key, T& field);
  template <class T>
  void optional(const char* key, T& field, T otherwise);
  // The id of a special token; absent means `otherwise`, null and negative ids mean none (-1). Of a
  // list the first is taken.
  void id(const char* key, int& field, int otherwise = -1);
  // A key of which these models follow one value, which is also what its absence means.
  void only(const char* key, const nlohmann::ordered_json& value);
  // Two keys that Arch has one field for.
  void same(const char* key, double value);
  // A key with two values, of which `yes` sets the field.
  void choice(const char* key, bool& field, const char* yes, const char* no, bool otherwise);
  // A key whose value is a text; absent means `otherwise`.
  void text(const char* key, std::string& field, const std::string& otherwise);
  // Rotary positions and how they are scaled, in the old and the new spelling.
  void rope(double& theta, RopeScaling&);
  // Keys, separated by spaces, that change no forward pass of these models.
  void unused(const std::string& keys);
  void write(const char* key, const nlohmann::ordered_json& value);

  bool has(const char* key) { return find(key) != nullptr; }
  void problem(std::string text) { problems_.push_back(std::move(text)); }
  void done();  // reading: throws the problems met, and the keys that nothing asked for

  nlohmann::ordered_json values;

 private:
  const nlohmann::ordered_json* find(const char* key);
  void rope_object(const char* key, double& theta, RopeScaling&);
  template <class T>
  bool take(const char* key, T& field);  // false: absent

  bool reading_ = false;
  std::string file_;
  std::set<std::string> asked_;
  std::vector<std::string> problems_;
};

// What Family::keys points at.
void bert_keys(ConfigKeys&, Arch&);
void roberta_keys(ConfigKeys&, Arch&);
void distilbert_keys(ConfigKeys&, Arch&);
void esm_keys(ConfigKeys&, Arch&);
void gpt2_keys(ConfigKeys&, Arch&);
void opt_keys(ConfigKeys&, Arch&);
void llama_keys(ConfigKeys&, Arch&);
void mistral_keys(ConfigKeys&, Arch&);
void qwen2_keys(ConfigKeys&, Arch&);
void qwen3_keys(ConfigKeys&, Arch&);
void t5_keys(ConfigKeys&, Arch&);

}  // namespace graft
