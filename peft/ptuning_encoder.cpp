// The prompt encoders of P-tuning, of ordinary ops: a prompt is short, so clear beats fast.
#include <cmath>

#include "peft/ptuning.h"

namespace graft {
namespace {

constexpr int kLstmLayers = 2;
constexpr const char* kWays[] = {"forward", "backward"};

void add_linear_weights(std::vector<EncoderWeight>& all, const std::string& name, int out, int in) {
  const Init init{Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(in))};
  all.push_back({name + ".weight", {out, in}, init});
  all.push_back({name + ".bias", {out}, init});
}

Tensor layer(const ByName& at, const std::string& name, const Tensor& x) {
  return linear(x, at(name + ".weight"), at(name + ".bias"));
}

// One direction of one LSTM layer over x [n, in] -> [n, H] (Hochreiter and Schmidhuber 1997, with
// forget gates, as PyTorch has it): i, f, g, o = W_i x + b_i + W_h h + b_h; c = f c + i g;
// h = o tanh(c).
Tensor lstm(const Tensor& x, const ByName& at, const std::string& name, bool backward) {
  const Tensor w_h = at(name + ".weight_h"), b_h = at(name + ".bias_h");
  const Tensor of_x = linear(x, at(name + ".weight_i"), at(name + ".bias_i"));
  const std::int64_t n = x.dim(0), h_width = w_h.dim(1);
  Tensor h(Array::zeros({1, h_width}, x.kind())), c = h;
  std::vector<Tensor> rows(static_cast<std::size_t>(n));
  for (std::int64_t step = 0; step < n; ++step) {
    const std::int64_t row = backward ? n - 1 - step : step;
    const Tensor gates = slice(of_x, 0, row, row + 1) + linear(h, w_h, b_h);
    const auto gate = [&](int i) { return slice(gates, 1, i * h_width, (i + 1) * h_width); };
    c = sigmoid(gate(1)) * c + sigmoid(gate(0)) * tanh(gate(2));
    h = sigmoid(gate(3)) * tanh(c);
    rows[static_cast<std::size_t>(row)] = h;
  }
  return concat(rows, 0);
}

}  // namespace

std::vector<EncoderWeight> encoder_weights(const PtuningOptions& o, int d) {
  const int n = o.place.rows() * static_cast<int>(o.stacks.size()), h = o.hidden;
  std::vector<EncoderWeight> all{{"prompt", {n, d}, {Init::Kind::normal, 1}}};
  if (o.encoder == "mlp") {
    add_linear_weights(all, "mlp.0", h, d);
    add_linear_weights(all, "mlp.1", h, h);
    add_linear_weights(all, "mlp.2", d, h);
  } else if (o.encoder == "mlp2") {
    add_linear_weights(all, "mlp.0", h, d);
    add_linear_weights(all, "mlp.1", d, h);
  } else if (o.encoder == "lstm") {
    const Init init{Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(h))};
    for (int i = 0; i < kLstmLayers; ++i)
      for (const char* way : kWays) {
        const std::string name = fmt::format("lstm.{}.{}", i, way);
        all.push_back({name + ".weight_i", {4 * h, i == 0 ? d : 2 * h}, init});
        all.push_back({name + ".weight_h", {4 * h, h}, init});
        all.push_back({name + ".bias_i", {4 * h}, init});
        all.push_back({name + ".bias_h", {4 * h}, init});
      }
    add_linear_weights(all, "mlp.0", 2 * h, 2 * h);
    add_linear_weights(all, "mlp.1", d, 2 * h);
  }
  return all;
}

Tensor encoded_rows(const PtuningOptions& o, const ByName& at) {
  Tensor x = at("prompt");
  if (o.encoder == "none") return x;
  if (o.encoder == "lstm")
    for (int i = 0; i < kLstmLayers; ++i) {
      std::vector<Tensor> both;
      for (const char* way : kWays)
        both.push_back(lstm(x, at, fmt::format("lstm.{}.{}", i, way), way == kWays[1]));
      x = concat(both, 1);
    }
  const int layers = o.encoder == "mlp" ? 3 : 2;
  for (int i = 0; i < layers; ++i) {
    x = layer(at, fmt::format("mlp.{}", i), x);
    if (i + 1 < layers) x = relu(x);
  }
  return x;
}

}  // namespace graft
