#include "experiments/harness/grid.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;

json nest(std::string_view path, json value) {
  if (path.empty()) {
    check(value.is_object(), "axis: an empty path merges objects; given {}", value.dump());
    return value;
  }
  auto dot = path.rfind('.');
  auto leaf = path.substr(dot == path.npos ? 0 : dot + 1);
  check(!leaf.empty() && dot != 0, "axis: path \"{}\" has an empty name", path);
  json object = {{std::string(leaf), std::move(value)}};
  return dot == path.npos ? object : nest(path.substr(0, dot), std::move(object));
}

void merge(json& into, const json& from, const std::string& path) {
  for (const auto& [name, value] : from.items()) {
    std::string here = path.empty() ? name : path + "." + name;
    if (!into.contains(name))
      into[name] = value;
    else if (into[name].is_object() && value.is_object())
      merge(into[name], value, here);
    else
      fail("grid: {} is set twice, to {} and to {}", here, into[name].dump(), value.dump());
  }
}

// Whole numbers as integers, so that 1 and 1.0 are the same configuration.
json plain(const json& value) {
  if (value.is_number_float()) {
    double v = value.get<double>();
    check(std::isfinite(v), "arm: {} is no number that JSON can hold", v);
    if (v == std::floor(v) && std::abs(v) < 9e15) return static_cast<std::int64_t>(v);
  }
  if (!value.is_structured()) return value;
  json copy = value;
  for (auto& item : copy) item = plain(item);
  return copy;
}

int parse_int(std::string_view text, std::string_view whole) {
  int value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size(),
        "shard: \"{}\"; need i/n with 0 <= i < n, e.g. 0/8", whole);
  return value;
}

}  // namespace

std::string Arm::key() const { return fnv1a_128(canonical({{"config", config}, {"seed", seed}})); }

Grid one(std::string_view path, json value) { return {{nest(path, std::move(value))}}; }

Grid axis(std::string_view path, const std::vector<json>& values) {
  check(!values.empty(), "axis: \"{}\" has no values", path);
  Grid grid;
  for (const json& value : values) grid.points.push_back(nest(path, value));
  return grid;
}

Grid operator*(const Grid& a, const Grid& b) {
  Grid product;
  for (const json& left : a.points)
    for (const json& right : b.points) {
      product.points.push_back(left);
      merge(product.points.back(), right, "");
    }
  return product;
}

Grid operator+(const Grid& a, const Grid& b) {
  Grid sum = a;
  sum.points.insert(sum.points.end(), b.points.begin(), b.points.end());
  return sum;
}

std::vector<Arm> expand(const Grid& grid, std::span<const std::uint64_t> seeds) {
  check(!grid.points.empty(), "expand: the grid is empty");
  check(!seeds.empty(), "expand: no seeds");
  std::vector<Arm> arms;
  std::set<std::string> keys;
  for (std::uint64_t seed : seeds)
    for (const json& point : grid.points) {
      arms.push_back({point, seed});
      check(keys.insert(arms.back().key()).second, "expand: this arm comes twice: seed {}, {}",
            seed, point.dump());
    }
  return arms;
}

std::string Shard::label() const { return fmt::format("{}of{}", index, count); }

Shard parse_shard(std::string_view text) {
  auto slash = text.find('/');
  check(slash != text.npos, "shard: \"{}\"; need i/n with 0 <= i < n, e.g. 0/8", text);
  Shard shard{parse_int(text.substr(0, slash), text), parse_int(text.substr(slash + 1), text)};
  check(0 <= shard.index && shard.index < shard.count,
        "shard: \"{}\"; need i/n with 0 <= i < n: the parts of 8 are 0/8 to 7/8", text);
  return shard;
}

std::vector<Arm> select(const std::vector<Arm>& arms, const Shard& shard) {
  std::vector<std::string> keys, sorted;
  for (const Arm& arm : arms) keys.push_back(arm.key());
  sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  std::vector<Arm> mine;
  for (std::size_t i = 0; i < arms.size(); ++i) {
    auto place = std::lower_bound(sorted.begin(), sorted.end(), keys[i]) - sorted.begin();
    if (place % shard.count == shard.index) mine.push_back(arms[i]);
  }
  return mine;
}

std::string canonical(const json& value) {
  try {
    return plain(value).dump();
  } catch (const json::exception& error) {  // text that is no UTF-8
    fail("arm: no JSON: {}", error.what());
  }
}

std::string fnv1a_128(std::string_view bytes) {
  // As four 32-bit digits: the prime is 2^88 + 0x13b, so a product is a shift and a small multiple.
  std::uint64_t digit[4] = {0x6295c58d, 0x62b82175, 0x07bb0142, 0x6c62272e};
  for (unsigned char byte : bytes) {
    digit[0] ^= byte;
    std::uint64_t next[4], carry = 0;
    for (int i = 0; i < 4; ++i) {
      carry += digit[i] * 0x13b;
      if (i == 2) carry += (digit[0] << 24) & 0xffffffff;
      if (i == 3) carry += (digit[0] >> 8) + ((digit[1] << 24) & 0xffffffff);
      next[i] = carry & 0xffffffff;
      carry >>= 32;
    }
    std::copy(next, next + 4, digit);
  }
  return fmt::format("{:08x}{:08x}{:08x}{:08x}", digit[3], digit[2], digit[1], digit[0]);
}

}  // namespace graft
