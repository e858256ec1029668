#include "peft/spec.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

namespace graft {
namespace {

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t end = text.find(at);
    parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

Options parse_one(std::string_view text) {
  const std::size_t colon = text.find(':');
  const std::string method(trimmed(text.substr(0, colon)));
  check(!method.empty(), "method '{}': it has no name; write e.g. lora:r=8,on=q+v", text);
  std::map<std::string, std::string> given;
  if (colon != std::string_view::npos)
    for (std::string_view pair : split(text.substr(colon + 1), ',')) {
      const std::size_t equals = pair.find('=');
      check(equals != std::string_view::npos, "{}: '{}' is not key=value", method, pair);
      const std::string key(trimmed(pair.substr(0, equals)));
      const std::string value(trimmed(pair.substr(equals + 1)));
      check(!key.empty() && !value.empty(), "{}: '{}' is not key=value", method, pair);
      check(given.emplace(key, value).second, "{}: '{}' is given twice", method, key);
    }
  return {method, std::move(given)};
}

}  // namespace

std::vector<Options> parse_spec(std::string_view text) {
  std::vector<Options> all;
  for (std::string_view one : split(text, '|')) all.push_back(parse_one(one));
  return all;
}

std::string Options::text(const std::string& key, const std::string& standard) {
  known_.insert(key);
  const auto at = given_.find(key);
  return at == given_.end() ? standard : at->second;
}

std::string Options::choice(const std::string& key, const std::string& standard,
                            const std::vector<std::string>& choices) {
  const std::string value = text(key, standard);
  for (const std::string& c : choices)
    if (value == c) return value;
  fail("{}: {}={}; need one of {}", method_, key, value, fmt::join(choices, ", "));
}

bool Options::flag(const std::string& key, bool standard) {
  return choice(key, standard ? "yes" : "no", {"yes", "no"}) == "yes";
}

int Options::integer(const std::string& key, int standard, int least) {
  const std::string value = text(key, std::to_string(standard));
  int n = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
  check(error == std::errc() && end == value.data() + value.size() && n >= least,
        "{}: {}={}; need a whole number of at least {}{}", method_, key, value, least,
        error == std::errc::result_out_of_range
            ? fmt::format(", at most {}", std::numeric_limits<int>::max())
            : "");
  return n;
}

double Options::real(const std::string& key, double standard) {
  const std::string value = text(key, fmt::format("{}", standard));
  double x = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), x);
  check(error == std::errc() && end == value.data() + value.size() && std::isfinite(x),
        "{}: {}={}; need a number", method_, key, value);
  return x;
}

Where Options::layers(const Arch& arch) {
  Where where;
  try {
    const std::string layers = text("layers", "all");
    check(!layers.starts_with("top") || !arch.crosses() || arch.encoder_layers == arch.layers,
          "layers={}: the encoder has {} layers, the decoder {}; write a range", layers,
          arch.encoder_layers, arch.layers);
    parse_layers(layers, std::max(arch.layers, arch.encoder_layers), where);
  } catch (const Error& e) {
    fail("{}: {}", method_, e.what());
  }
  return where;
}

Where Options::where(const std::string& on, const Arch& arch) {
  Where where = layers(arch);
  try {
    where.parts = parts_named(text("on", on));
  } catch (const Error& e) {
    fail("{}: on={}: {}", method_, text("on", on), e.what());
  }
  return where;
}

void Options::finish() const {
  for (const auto& [key, value] : given_)
    check(known_.contains(key), "{}: unknown option '{}'; it takes {}", method_, key,
          known_.empty() ? "none" : fmt::format("{}", fmt::join(known_, ", ")));
}

std::string Options::to_string() const {
  std::string out = method_;
  char before = ':';
  for (const auto& [key, value] : given_) {
    out += before + key + "=" + value;
    before = ',';
  }
  return out;
}

}  // namespace graft
