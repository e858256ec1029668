#include "nn/models/stored.h"

#include <map>
#include <utility>

#include "nn/models/family.h"

namespace graft {
namespace {

// Calls f(i, at) for every element of a piece: element i of it lies at `at` within the tensor.
template <class F>
void each_element(const Stored& tensor, std::size_t piece, F f) {
  const bool matrix = tensor.shape.size() == 2;
  const std::int64_t all_rows = tensor.shape[tensor.transposed ? 1 : 0];
  const std::int64_t columns = !matrix ? 1 : tensor.shape[tensor.transposed ? 0 : 1];
  std::int64_t first = 0;
  for (std::size_t p = 0; p < piece; ++p) first += tensor.pieces[p]->value().dim(0);
  const std::int64_t rows = tensor.pieces[piece]->value().dim(0);
  for (std::int64_t r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < columns; ++c)
      f(r * columns + c, tensor.transposed ? c * all_rows + first + r : (first + r) * columns + c);
}

bool gives_way_to_head(Part part) {
  return part == Part::pooler || part == Part::lm_dense || part == Part::lm_norm ||
         part == Part::lm_head;
}

}  // namespace

std::vector<Stored> stored_tensors(Model& model, bool head) {
  std::vector<Stored> all;
  std::map<std::string, std::size_t> known;
  const auto add = [&](Weight& w) {
    const Parameter& p = w.parameter();
    const Place at = place_of(model.arch(), p.site, p.name);
    const bool matrix = p.value.shape().size() == 2, transposed = at.transposed && matrix;
    const auto [entry, fresh] = known.try_emplace(at.name(), all.size());
    if (fresh) all.push_back({at.name(), {}, transposed, {}});
    Stored& tensor = all[entry->second];
    check(static_cast<int>(tensor.pieces.size()) == at.piece,
          "models: {} is piece {} of {}, of which {} are there", p.label(), at.piece, at.name(),
          tensor.pieces.size());
    tensor.pieces.push_back(&w);
    Shape& shape = tensor.shape;
    if (fresh) {
      shape = p.value.shape();
      if (transposed) std::swap(shape[0], shape[1]);
    } else {
      shape[transposed ? 1 : 0] += p.value.dim(0);
    }
  };
  model.each([&](Weight& w) {
    if (!head || !gives_way_to_head(w.parameter().site.part)) add(w);
  });
  if (head) model.head().each(add);
  return all;
}

std::vector<float> joined(const Stored& tensor) {
  std::vector<float> values(static_cast<std::size_t>(count(tensor.shape)));
  for (std::size_t p = 0; p < tensor.pieces.size(); ++p) {
    const Array piece = tensor.pieces[p]->value().value().to(ArrayKind(Dtype::f32)).as_contiguous();
    const float* from = piece.data<float>();
    each_element(tensor, p, [&](std::int64_t i, std::int64_t at) { values[at] = from[i]; });
  }
  return values;
}

void split(const Stored& tensor, const Array& whole, Dtype dtype) {
  const int rows = tensor.transposed ? 1 : 0;
  const bool stays = widened(whole.dtype()) == dtype;
  std::int64_t begin = 0;
  for (Weight* w : tensor.pieces) {
    Parameter& p = w->parameter();
    const std::int64_t end = begin + p.value.dim(0);
    Array piece = whole.slice(rows, std::exchange(begin, end), end);
    if (tensor.transposed) piece = piece.transpose();
    p.value = Tensor(stays ? piece : piece.own_copy().to(dtype));
  }
}

}  // namespace graft
