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

namespace {

// [copies heads, places]: the table's rows at every place, for each sequence anew. Their gradients
// then run into the table's sequence by sequence, in the order of a whole batch, however it is cut.
Tensor spread(const Tensor& table, const std::vector<std::int32_t>& bucket, std::int64_t copies) {
  const std::int64_t heads = table.dim(1), places = static_cast<std::int64_t>(bucket.size());
  // On the host, wherever the rest is: these are a few numbers.
  const Array now = table.value().to(ArrayKind(widened(table.dtype()))).as_contiguous();
  Array y = Array::empty({copies * heads, places}, now.kind());
  const auto each = [=](const auto& f) {
    for (std::int64_t row = 0; row < copies * heads; ++row)
      for (std::int64_t p = 0; p < places; ++p)
        f(row * places + p, bucket[static_cast<std::size_t>(p)] * heads + row % heads);
  };
  dispatch(y, [&]<class T>(T) {
    each([&, from = now.data<T>()](std::int64_t at, std::int64_t of) {
      y.data<T>()[at] = from[of];
    });
  });
  y = y.to(table.value().device());
  return record("relative places", y, {table}, {}, [each](const Array& dy, const Saved&, Grads& g) {
    const Array d = dy.to(Device::cpu).as_contiguous();
    Array& sum = g.into(0);
    Array into = sum.to(Device::cpu);
    dispatch(d, [&]<class T>(T) {
      each([&](std::int64_t at, std::int64_t of) { into.data<T>()[of] += d.data<T>()[at]; });
    });
    if (sum.device() != Device::cpu) sum.copy_from(into);
  });
}

}  // namespace

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
  const Tensor now = table(ctx);
  const bool learns = now.needs_grad();
  return {spread(now, bucket, learns ? static_cast<std::int64_t>(s.length.size()) : 1), keys - 1};
}

}  // namespace graft
