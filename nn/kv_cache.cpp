#include "nn/kv_cache.h"

#include <algorithm>

namespace graft {
namespace {

constexpr int kRows = 32;  // capacities are multiples of it

// `from` with room for `capacity` rows of each of the sequences in `order`.
Array moved(const Array& from, const KvCache::Layer& at, const std::vector<int>& order,
            std::int64_t capacity) {
  Array to =
      Array::empty({static_cast<std::int64_t>(order.size()) * capacity, from.dim(1)}, from.kind());
  for (std::size_t i = 0; i < order.size(); ++i) {
    const std::int64_t start = at.start[order[i]], length = at.length[order[i]];
    if (length == 0) continue;
    const std::int64_t begin = static_cast<std::int64_t>(i) * capacity;
    to.slice(0, begin, begin + length).copy_from(from.slice(0, start, start + length));
  }
  return to;
}

void rebuild(KvCache::Layer& layer, const std::vector<int>& order, std::int64_t capacity) {
  if (layer.k.defined()) {
    layer.k = moved(layer.k, layer, order, capacity);
    layer.v = moved(layer.v, layer, order, capacity);
  }
  KvCache::Layer now{layer.k, layer.v, {}, {}};
  for (std::size_t i = 0; i < order.size(); ++i) {
    now.start.push_back(static_cast<int>(static_cast<std::int64_t>(i) * capacity));
    now.length.push_back(layer.length[order[i]]);
  }
  layer = std::move(now);
}

std::int64_t capacity_of(const KvCache::Layer& layer) {
  return layer.k.defined() && !layer.start.empty()
             ? layer.k.dim(0) / static_cast<std::int64_t>(layer.start.size())
             : 0;
}

}  // namespace

KvCache::KvCache(int layers, int sequences, int expected)
    : layers_(static_cast<std::size_t>(layers)),
      expected_(expected),
      position_(static_cast<std::size_t>(sequences), 0) {
  for (Layer& layer : layers_) {
    layer.start.assign(static_cast<std::size_t>(sequences), 0);
    layer.length.assign(static_cast<std::size_t>(sequences), 0);
  }
  memory_ = layers_;
}

int KvCache::read(int sequence) const {
  return layers_.empty() ? 0 : layers_[0].length.at(static_cast<std::size_t>(sequence));
}

const KvCache::Layer& KvCache::extend(int at, const Array& k, const Array& v,
                                      const std::vector<int>& rows) {
  return append(layers_.at(static_cast<std::size_t>(at)), k, v, rows, expected_);
}

const KvCache::Layer& KvCache::keep_memory(int at, const Array& k, const Array& v,
                                           const std::vector<int>& rows) {
  return append(memory_.at(static_cast<std::size_t>(at)), k, v, rows, 0);
}

const KvCache::Layer& KvCache::append(Layer& layer, const Array& k, const Array& v,
                                      const std::vector<int>& rows, std::int64_t expected) {
  check(rows.size() == layer.length.size(), "cache: rows of {} sequences; it holds {}", rows.size(),
        layer.length.size());
  std::int64_t need = 0;
  for (std::size_t i = 0; i < rows.size(); ++i)
    need = std::max<std::int64_t>(need, layer.length[i] + rows[i]);
  if (const std::int64_t now = capacity_of(layer); need > now) {
    const std::int64_t rooms = need <= expected ? std::min(2 * need, expected) : 2 * now;
    const std::int64_t capacity = (std::max(need, rooms) + kRows - 1) / kRows * kRows;
    if (!layer.k.defined()) layer.k = Array::empty({0, k.dim(1)}, k.kind()), layer.v = layer.k;
    std::vector<int> order(rows.size());
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
    rebuild(layer, order, capacity);
  }
  std::int64_t row = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const std::int64_t begin = layer.start[i] + layer.length[i], end = begin + rows[i];
    layer.k.slice(0, begin, end).copy_from(k.slice(0, row, row + rows[i]));
    layer.v.slice(0, begin, end).copy_from(v.slice(0, row, row + rows[i]));
    layer.length[i] += rows[i];
    row += rows[i];
  }
  return layer;
}

void KvCache::select(const std::vector<int>& from) {
  for (Layer& layer : layers_) rebuild(layer, from, capacity_of(layer));
  for (Layer& layer : memory_) {  // it never grows, so that sequences may share its rows
    const Layer before = layer;
    layer.start.clear(), layer.length.clear();
    for (int i : from) {
      layer.start.push_back(before.start.at(static_cast<std::size_t>(i)));
      layer.length.push_back(before.length.at(static_cast<std::size_t>(i)));
    }
  }
  std::vector<std::int32_t> position;
  for (int i : from) position.push_back(position_.at(static_cast<std::size_t>(i)));
  position_ = std::move(position);
}

}  // namespace graft
