// Small random models and ragged batches for tests.
#pragma once

#include <omp.h>

#include <string>
#include <vector>

#include "nn/model.h"

namespace graft::testing {

inline Arch small_arch(Stack stack, int width = 24, int layers = 2, int heads = 3) {
  Arch a;
  a.family = stack == Stack::encoder ? "roberta-prelayernorm" : "gpt2";
  a.stack = stack;
  a.causal = stack == Stack::decoder;
  a.vocab = 29, a.width = width, a.layers = layers, a.heads = a.kv_heads = heads;
  a.hidden = 2 * width + 1, a.positions = 24;
  a.embed_norm = stack == Stack::encoder;
  a.mask = 4;
  return a;
}

// As LLaMA has it: RMSNorm, rotary positions, grouped heads, SwiGLU, no biases, untied.
inline Arch llama_like(int width = 24, int layers = 2) {
  Arch a = small_arch(Stack::decoder, width, layers, 6);
  a.family = "llama";
  a.kv_heads = 2, a.rope_theta = 100, a.learned_positions = false;
  a.rms = a.gated = true;
  a.biases = a.tied = false;
  a.activation = Map::silu;
  return a;
}

// Normal noise on a parameter, so that no bias is 0 and no gain 1.
inline void add_noise(Parameter& p, double by, std::uint32_t seed = 11) {
  Array& value = p.value.value();
  const std::uint32_t stream = stream_id((p.label() + "/noise").c_str());
  std::vector<double> noise(static_cast<std::size_t>(value.numel()));
  for (std::size_t i = 0; i < noise.size(); ++i) noise[i] = by * normal({seed, 0}, stream, i);
  kernels::axpy(value, Array::of(noise, value.shape()).to(value.dtype()), 1);
}

struct SmallModel : Model {
  explicit SmallModel(const Arch& a, Dtype dtype = Dtype::f32, double noise = 0.2)
      : Model(a, {dtype, true, 5}) {
    each([&](Weight& w) { add_noise(w.parameter(), noise); });
  }
};

// Every base parameter as a leaf.
inline std::vector<Tensor> train_all(Model& model) {
  std::vector<Tensor> leaves;
  model.each([&](Weight& w) {
    auto p = std::make_shared<Parameter>(w.parameter());
    p->value = Tensor::leaf(p->value.value(), p->label());
    leaves.push_back(p->value);
    w.put(p);
  });
  return leaves;
}

inline std::vector<Array> arrays_of(Model& model) {
  std::vector<Array> all;
  model.each([&](Weight& w) { all.push_back(w.value().value()); });
  return all;
}

// Sequences of these lengths, the first of them example `first`. An example's tokens and labels
// follow from its number and length.
inline Batch ragged(const Arch& a, const std::vector<int>& length, std::uint32_t first = 0) {
  Batch b;
  b.length = length;
  for (std::size_t s = 0; s < length.size(); ++s) {
    const std::uint32_t e = first + static_cast<std::uint32_t>(s);
    b.example.push_back(e);
    b.label.push_back(static_cast<std::int32_t>(e % 3));
    b.target.push_back(0.5f * static_cast<float>(e % 5));
    for (int i = 0; i < length[s]; ++i) {
      b.token.push_back(static_cast<std::int32_t>((e * 7 + i * 5 + 5) % a.vocab));
      b.token_label.push_back(i % 3 == 2 ? -1 : static_cast<std::int32_t>((e + i * 11) % a.vocab));
    }
  }
  return b;
}

inline Tensor rows_of(const Model& model, const Batch& batch) {
  Ctx ctx;
  return model.forward(batch, ctx).rows;
}

inline Array random_array(Shape shape, std::uint32_t stream, Dtype dtype = Dtype::f32,
                          double by = 1) {
  std::vector<double> v(static_cast<std::size_t>(count(shape)));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = by * normal({23, 0}, stream, i);
  return Array::of(v, std::move(shape)).to(dtype);
}

// So many threads while it lives. Tiny tensors on one thread do not wait for others to wake.
struct Threads {
  explicit Threads(int n) : before(omp_get_max_threads()) { omp_set_num_threads(n); }
  ~Threads() { omp_set_num_threads(before); }
  Threads(const Threads&) = delete;
  int before;
};

// max|a - b| / max|b|.
inline double difference(const Array& a, const Array& b) {
  const std::vector<double> x = a.to_vector(), y = b.to_vector();
  check(x.size() == y.size(), "difference: {} and {}", a.shape(), b.shape());
  double most = 0, size = 1e-30;
  for (std::size_t i = 0; i < x.size(); ++i) {
    most = std::max(most, std::abs(x[i] - y[i]));
    size = std::max(size, std::abs(y[i]));
  }
  return most / size;
}

}  // namespace graft::testing
