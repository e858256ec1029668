#include "nn/models/config.h"

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <utility>

#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"
#include "nn/models/family.h"
#include "nn/models/heads.h"
#include "nn/models/presets.h"

namespace graft {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kLargest = 1 << 24;  // what no size or id exceeds; their sums fit an int
// Blocks take memory before a weight is looked for. The deepest published model here has 126.
constexpr int kMostLayers = 512;

// transformers' names of activations; the first of a Map is the one written.
constexpr std::array<std::pair<const char*, Map>, 8> kActivations{
    {{"gelu", Map::gelu},
     {"gelu_new", Map::gelu_tanh},
     {"gelu_pytorch_tanh", Map::gelu_tanh},
     {"gelu_fast", Map::gelu_tanh},
     {"relu", Map::relu},
     {"silu", Map::silu},
     {"swish", Map::silu},
     {"tanh", Map::tanh}}};

Json as_json(Map activation) {
  for (const auto& [name, map] : kActivations)
    if (map == activation) return name;
  fail("config.json: transformers has no name for this model's activation");
}
Json as_json(const Json& value) { return value; }

// Each says what it needs where the value is not of its kind.
const char* read_value(const Json& value, int& field) {
  // The library compares an unsigned number with a signed one as if both were signed.
  const bool fits = value.is_number_unsigned()
                        ? value.get<std::uint64_t>() <= kLargest
                        : value.is_number_integer() && value.get<std::int64_t>() >= -kLargest;
  if (!fits) return "an integer of at most 2^24";
  field = value.get<int>();
  return nullptr;
}
const char* read_value(const Json& value, double& field) {
  if (!value.is_number()) return "a number";
  field = value.get<double>();
  return nullptr;
}
const char* read_value(const Json& value, bool& field) {
  if (!value.is_boolean()) return "true or false";
  field = value.get<bool>();
  return nullptr;
}
const char* read_value(const Json& value, Map& field) {
  for (const auto& [name, map] : kActivations)
    if (value == name) {
      field = map;
      return nullptr;
    }
  return "gelu, gelu_new, gelu_pytorch_tanh, gelu_fast, relu, silu, swish or tanh";
}

Json parse(const std::filesystem::path& path) {
  // Turned in one go: putting in key by key, each looked for among all before it, would take
  // minutes for the labels of a large head.
  Json values = parse_strict(path.string(), read_file(path));
  check(values.is_object(), "{}: holds {}; need an object", path.string(), values.type_name());
  return values;
}

// What the numbers must be for a model to be laid out without its weights, and to be one.
void check_numbers(ConfigKeys& keys, const Arch& a) {
  for (const int layers : {a.layers, a.encoder_layers})
    if (layers > kMostLayers)
      keys.problem(fmt::format("{} layers; need {} at most", layers, kMostLayers));
  if (std::int64_t{a.heads} * a.head_size > kLargest)
    keys.problem(
        fmt::format("{} heads of width {}; need 2^24 together at most", a.heads, a.head_size));
  if (!(a.norm_eps >= 0))
    keys.problem(fmt::format("the norms' eps is {}; need 0 or more", a.norm_eps));
  if (!(a.dropout >= 0 && a.dropout < 1))
    keys.problem(fmt::format("dropout is {}; need 0 or more and less than 1", a.dropout));
  if (a.rope_theta < 0)
    keys.problem(fmt::format("rope_theta is {}; need more than 0", a.rope_theta));
}

Arch read_values(const std::string& file, const Json& values) {
  const auto type = values.find("model_type");
  check(type != values.end() && type->is_string(), "{}: model_type is missing; it names the family",
        file);
  const Family& family = family_named(type->get<std::string>());
  Arch arch = family.arch;
  ConfigKeys keys(file, values);
  family.keys(keys, arch);
  check_numbers(keys, arch);
  keys.done();
  // Without its family's vocabulary head: what that has besides the embedding is not there.
  const auto classes = values.find("architectures");
  if (classes == values.end() || !classes->is_array() || classes->empty()) return arch;
  // A decoder's whose head is the embedding has it all the same.
  const bool encoder = arch.stack == Stack::encoder, untied = !arch.tied && !arch.crosses();
  const bool body = (encoder || untied) && classes->front() == family.body;
  if (body || has_family_head(file, family, values)) arch = without_lm_head(arch);
  arch.pooler = body && family.has(Part::pooler);
  return arch;
}

}  // namespace

ConfigKeys::ConfigKeys(std::string file, const Json& given)
    : values(given), reading_(true), file_(std::move(file)) {}

const Json* ConfigKeys::find(const char* key) {
  asked_.insert(key);
  const auto at = values.find(key);
  return at == values.end() || at->is_null() ? nullptr : &*at;
}

template <class T>
bool ConfigKeys::take(const char* key, T& field) {
  const Json* found = find(key);
  if (!found) return false;
  if (const char* wanted = read_value(*found, field))
    problem(fmt::format("{} is {}; need {}", key, found->dump(), wanted));
  return true;
}

template <class T>
void ConfigKeys::need(const char* key, T& field) {
  if (!reading_) return write(key, as_json(field));
  if (!take(key, field)) problem(fmt::format("{} is missing", key));
}

template <class T>
void ConfigKeys::optional(const char* key, T& field, T otherwise) {
  if (!reading_) return write(key, as_json(field));
  if (!take(key, field)) field = otherwise;
}

template void ConfigKeys::need(const char*, int&);
template void ConfigKeys::need(const char*, double&);
template void ConfigKeys::need(const char*, Map&);
template void ConfigKeys::optional(const char*, int&, int);
template void ConfigKeys::optional(const char*, double&, double);
template void ConfigKeys::optional(const char*, bool&, bool);

void ConfigKeys::id(const char* key, int& field, int otherwise) {
  if (!reading_) return write(key, field < 0 ? Json(nullptr) : Json(field));
  asked_.insert(key);
  const auto at = values.find(key);
  if (at == values.end()) {
    field = otherwise;
    return;
  }
  const Json& value = at->is_array() && !at->empty() ? at->front() : *at;
  if (value.is_null()) {
    field = -1;
  } else if (const char* wanted = read_value(value, field)) {
    problem(fmt::format("{} is {}; need {}", key, at->dump(), wanted));
  }
  field = std::max(field, -1);
}

void ConfigKeys::only(const char* key, const Json& value) {
  if (!reading_) return;
  const Json* found = find(key);
  if (found && *found != value)
    problem(
        fmt::format("{} is {}; this version follows only {}", key, found->dump(), value.dump()));
}

void ConfigKeys::same(const char* key, double value) {
  double other = 0;
  if (!reading_) return write(key, value);
  if (!take(key, other)) return problem(fmt::format("{} is missing", key));
  if (other != value)
    problem(fmt::format("{} is {}; this version has one dropout, which is {}", key, other, value));
}

void ConfigKeys::choice(const char* key, bool& field, const char* yes, const char* no,
                        bool otherwise) {
  if (!reading_) return write(key, field ? yes : no);
  const Json* found = find(key);
  field = found ? *found == yes : otherwise;
  if (found && *found != yes && *found != no)
    problem(fmt::format("{} is {}; need {} or {}", key, found->dump(), yes, no));
}

void ConfigKeys::text(const char* key, std::string& field, const std::string& otherwise) {
  if (!reading_) return write(key, field);
  const Json* found = find(key);
  field = otherwise;
  if (found && found->is_string())
    field = *found;
  else if (found)
    problem(fmt::format("{} is {}; need a text", key, found->dump()));
}

namespace {

struct RopeKind {
  RopeScaling::Kind kind;
  const char* name;
};
constexpr RopeKind kRopeKinds[] = {{RopeScaling::Kind::none, "default"},
                                   {RopeScaling::Kind::linear, "linear"},
                                   {RopeScaling::Kind::llama3, "llama3"}};

Json as_json(double theta, const RopeScaling& s) {
  Json object{{"rope_theta", theta}};
  for (const RopeKind& k : kRopeKinds)
    if (k.kind == s.kind) object["rope_type"] = k.name;
  if (s.kind != RopeScaling::Kind::none) object["factor"] = s.factor;
  if (s.kind == RopeScaling::Kind::llama3) {
    object["low_freq_factor"] = s.low;
    object["high_freq_factor"] = s.high;
    object["original_max_position_embeddings"] = s.original;
  }
  return object;
}

}  // namespace

void ConfigKeys::rope(double& theta, RopeScaling& scaling) {
  if (!reading_) {
    const Json object = as_json(theta, scaling);
    write("rope_theta", theta);
    if (scaling.kind != RopeScaling::Kind::none) write("rope_scaling", object);
    return write("rope_parameters", object);
  }
  if (!take("rope_theta", theta)) theta = 0;
  scaling = {};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    RopeScaling one;
    if (!find(key)) continue;
    rope_object(key, theta, one);
    if (scaling != RopeScaling{} && one != scaling)
      problem("rope_scaling and rope_parameters do not say the same");
    scaling = one;
  }
  if (theta == 0) theta = 10000;
}

// One of the two objects; a theta in it must be the one known so far, if one is.
void ConfigKeys::rope_object(const char* key, double& theta, RopeScaling& scaling) {
  const Json& object = *find(key);
  if (!object.is_object()) return problem(fmt::format("{} is not an object", key));
  std::string kind = "default";
  for (const char* name : {"type", "rope_type"})
    if (object.contains(name) && object[name].is_string()) kind = object[name];
  const auto known = std::ranges::find(kRopeKinds, kind, &RopeKind::name);
  if (known == std::end(kRopeKinds))
    return problem(
        fmt::format("{}: rope_type is \"{}\"; there are default, linear and llama3", key, kind));
  scaling.kind = known->kind;
  std::map<std::string, double> given;
  for (const auto& [name, value] : object.items()) {
    if (name == "type" || name == "rope_type") continue;
    if (value.is_number())
      given[name] = value;
    else
      problem(fmt::format("{}: {} is {}; need a number", key, name, value.dump()));
  }
  const auto field = [&](const char* name, bool needed, double& to) {
    const auto at = given.find(name);
    if (at == given.end()) {
      if (needed) problem(fmt::format("{}: {} is missing", key, name));
      return;
    }
    to = at->second;
    given.erase(at);
  };
  double other = theta;
  field("rope_theta", false, other);
  if (theta != 0 && other != theta)
    problem(fmt::format("rope_theta is {}, in {} {}", theta, key, other));
  theta = other;
  const bool llama3 = scaling.kind == RopeScaling::Kind::llama3;
  if (scaling.kind != RopeScaling::Kind::none) field("factor", true, scaling.factor);
  if (llama3) {
    field("low_freq_factor", true, scaling.low);
    field("high_freq_factor", true, scaling.high);
    double original = 0;
    field("original_max_position_embeddings", true, original);
    if (original >= 1 && original <= kLargest) scaling.original = static_cast<int>(original);
  }
  for (const auto& [name, value] : given)
    problem(fmt::format("{}: rope_type \"{}\" has no {}", key, kind, name));
  if (scaling.factor < 1 || (llama3 && (scaling.high <= scaling.low || scaling.original < 1)))
    problem(
        fmt::format("{}: {}; need factor >= 1, high_freq_factor > low_freq_factor and positions",
                    key, object.dump()));
}

void ConfigKeys::unused(const std::string& keys) {
  std::istringstream words(keys);
  for (std::string key; words >> key;) asked_.insert(key);
}

void ConfigKeys::write(const char* key, const Json& value) {
  if (!reading_) values[key] = value;
}

void ConfigKeys::done() {
  for (const auto& [key, value] : values.items())
    if (!value.is_null() && !asked_.contains(key))
      problem(fmt::format("{} is a key that this version does not know", key));
  check(problems_.empty(), "{}: {}", file_, fmt::join(problems_, "; "));
}

Json config_values(const std::filesystem::path& config_json) { return parse(config_json); }

Arch read_config(const std::filesystem::path& config_json) {
  return read_values(config_json.string(), parse(config_json));
}

std::string config_text(const Arch& given, std::string_view dtype, const HeadConfig* head) {
  const Family& family = family_named(given.family);
  Arch arch = given;
  if (head) arch = without_lm_head(given), arch.pooler = false;
  ConfigKeys keys;
  keys.write("model_type", family.name);
  keys.write("architectures", Json::array({head      ? family.head.architecture
                                           : arch.lm ? family.architecture
                                                     : family.body}));
  keys.write("torch_dtype", dtype);
  Arch copy = arch;
  family.keys(keys, copy);
  if (head) write_head(keys.values, *head);
  Arch said = read_values("config.json", keys.values);
  said.pooler = said.pooler && arch.pooler;  // the weights say whether it is there
  check(said == arch,
        "config.json: family {} has no keys for all that this Arch says; its switches (norms, "
        "biases, vocabulary head, offset of positions ...) must be the family's own",
        family.name);
  return keys.values.dump(2) + "\n";
}

}  // namespace graft
