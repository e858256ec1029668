#include "nn/relative.h"

#include <algorithm>
#include <cmath>

namespace graft {

int relative_bucket(int place, bool causal, int buckets, int distance) {
  int first = 0;
  if (!causal) {
    buckets /= 2;
    if (place > 0) first = buckets;
  }
  const int apart = causal ? std::max(-place, 0) : std::abs(place), exact = buckets / 2;
  if (apart < exact) return first + apart;
  const float turns = std::log(static_cast<float>(apart) / static_cast<float>(exact)) /
                      static_cast<float>(std::log(static_cast<double>(distance) / exact)) *
                      static_cast<float>(buckets - exact);
  return first + std::min(exact + static_cast<int>(turns), buckets - 1);
}

RelativeBias::RelativeBias(const Build& build, const Arch& a)
    : causal_(a.causal), distance_(a.relative_distance) {
  const int exact = a.relative_buckets / (a.causal ? 2 : 4);
  check(exact >= 1 && a.relative_distance > exact,
        "model: {} buckets of relative places up to {}; need at least {} buckets, and a distance "
        "above the {} that are exact",
        a.relative_buckets, a.relative_distance, a.causal ? 2 : 4, exact);
  const Site site{a.stack, -1, Part::position};
  table.put(std::make_shared<Parameter>(
      Parameter{site, "relative",
                Tensor(initial(build, {Init::Kind::normal, 0.02}, {a.relative_buckets, a.heads},
                               site, "relative")),
                true, 1}));
}

PlaceBias RelativeBias::operator()(const Sequence& s, const Ctx& ctx) const {
  int keys = 1, queries = 1;
  for (std::size_t i = 0; i < s.length.size(); ++i) {
    const int before = ctx.cache ? ctx.cache->read(static_cast<int>(i)) : 0;
    keys = std::max(keys, before + s.length[i]);
    queries = std::max(queries, s.length[i]);
  }
  std::vector<std::int32_t> bucket;
  for (int place = 1 - keys; place < (causal_ ? 1 : queries); ++place)
    bucket.push_back(
        relative_bucket(place, causal_, static_cast<int>(table.value().dim(0)), distance_));
  return {transpose(gather(table.value(), Array::of(bucket))), keys - 1};
}

}  // namespace graft
