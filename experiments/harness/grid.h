// Grids of arms as values: axes multiply, alternatives add, seeds and shards pick from the result.
//
//   Grid grid = one("task", "mnli") *
//               (one("method", "lora") * axis("lora.r", {1, 2, 4, 8, 64}) * axis("lr", rates) +
//                one("method", "full") * axis("lr", lower_rates));
//   for (const Arm& arm : select(expand(grid, seeds), shard)) ...
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

// One configuration of an experiment, and the seed of one run of it.
struct Arm {
  nlohmann::json config = nlohmann::json::object();
  std::uint64_t seed = 0;

  std::string key() const;  // 32 hex digits: fnv1a_128 of the canonical text of config and seed
};

struct Grid {
  std::vector<nlohmann::json> points;
};

// One point, or one for each value. The path's dots nest: "lora.r" sets {"lora": {"r": ...}}. An
// empty path merges the values themselves, which must be objects: {{"on", "q"}, {"r", 8}}, ...
Grid one(std::string_view path, nlohmann::json value);
Grid axis(std::string_view path, const std::vector<nlohmann::json>& values);

// Every pair of points, merged; the left side varies slowest. Throws where both set one entry.
Grid operator*(const Grid& a, const Grid& b);
// The points of both. Throws in expand() where two are the same.
Grid operator+(const Grid& a, const Grid& b);

// All points of the first seed, then all of the next: an interrupted run leaves whole comparisons.
// Throws for an empty grid, no seeds, a seed given twice or a point that is in the grid twice.
std::vector<Arm> expand(const Grid& grid, std::span<const std::uint64_t> seeds);

// Which part of the arms one job of an array runs: parts are disjoint and together everything.
struct Shard {
  int index = 0, count = 1;

  std::string label() const;  // "0of8": names the shard's record file
};
Shard parse_shard(std::string_view text);  // "i/n" with 0 <= i < n, as in `--shard 0/8`

// The arms whose place in the order of keys is `index` modulo `count`, in the order given.
std::vector<Arm> select(const std::vector<Arm>& arms, const Shard& shard);

// JSON text that depends on the values alone: keys sorted, 1.0 written as 1. Throws for NaN and
// infinity, which JSON cannot hold.
std::string canonical(const nlohmann::json& value);

// The 128-bit FNV-1a hash, as 32 hex digits.
std::string fnv1a_128(std::string_view bytes);

}  // namespace graft
