#include "experiments/runs/features.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace graft {
namespace {

struct Vectors {
  Array train, dev, test;  // [examples, D]
};

Array pooled_rows(Model& base, const EncodedTask& task, const std::vector<EncodedExample>& examples,
                  int layer, const std::string& pool) {
  NoRecord off;
  std::vector<std::int32_t> order(examples.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<Tensor> parts;
  for (std::size_t at = 0; at < order.size(); at += 64) {
    const Batch whole =
        make_batch(task, examples, order, at, std::min<std::size_t>(64, order.size() - at));
    const Batch& batch = task.text() ? *whole.source : whole;
    Ctx ctx;
    Sequence s = base.run_blocks(base.embed(batch, ctx), ctx, 0, layer);
    if (layer == base.arch().layers) s = base.finish(std::move(s), ctx);
    if (pool == "mean") {
      parts.push_back(segment_mean(s.rows, s.length));
      continue;
    }
    std::vector<std::int32_t> rows;
    int start = 0;
    for (int l : s.length) {
      rows.push_back(pool == "cls" ? start : start + l - 1);
      start += l;
    }
    parts.push_back(gather(s.rows, Array::of(rows)));
  }
  return concat(parts, 0).value();
}

// (x - mean) / deviation, by the training rows.
void standardise(Vectors& v) {
  const std::int64_t n = v.train.dim(0), d = v.train.dim(1);
  std::vector<double> mean(d, 0), square(d, 0);
  const float* x = v.train.data<float>();
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < d; ++j)
      mean[j] += x[i * d + j], square[j] += double(x[i * d + j]) * x[i * d + j];
  for (std::int64_t j = 0; j < d; ++j) {
    mean[j] /= n;
    square[j] = std::sqrt(std::max(1e-12, square[j] / n - mean[j] * mean[j]));
  }
  for (Array* a : {&v.train, &v.dev, &v.test})
    for (std::int64_t i = 0; i < a->numel(); ++i)
      a->data<float>()[i] = static_cast<float>((a->data<float>()[i] - mean[i % d]) / square[i % d]);
}

struct Top {
  Top(const EncodedTask& task, const Build& build, int in, int hidden) {
    Arch shape;
    shape.width = in;
    const int out = task.goal == Goal::regression ? 1 : static_cast<int>(task.labels.size());
    const Site site{Stack::encoder, -1, Part::head};
    if (hidden > 0)
      first.emplace(build, Site{Stack::encoder, -1, Part::head_dense}, in, hidden, true);
    last.emplace(build, site, hidden > 0 ? hidden : in, out, true);
    const auto take = [&](Weight& w) {
      Parameter& p = w.parameter();
      p.value = Tensor::leaf(p.value.value(), p.label());
      parameters.push_back(std::make_shared<Parameter>(p));
    };
    if (first) first->each(take);
    last->each(take);
  }
  Tensor operator()(const Tensor& x) const {
    const Ctx ctx;
    return (*last)(first ? relu((*first)(x, ctx)) : x, ctx);
  }
  std::optional<Linear> first, last;
  Parameters parameters;
};

Score score(const EncodedTask& task, const std::vector<EncodedExample>& examples, const Top& top,
            const Array& x) {
  NoRecord off;
  std::vector<float> predictions;
  append_predictions(task, top(Tensor(x)), predictions);
  return score_predictions(task, examples, predictions);
}

void train(const EncodedTask& task, Top& top, const Array& x, double lr, std::uint32_t seed) {
  constexpr int kEpochs = 10, kBatch = 64;
  Optimizer optimizer(top.parameters, {.decay = 0.01});
  const int per_epoch = static_cast<int>((task.train.size() + kBatch - 1) / kBatch);
  const Schedule schedule{Schedule::Kind::linear, lr, kEpochs * per_epoch, 0};
  for (int step = 0; step < kEpochs * per_epoch; ++step) {
    const auto order = shuffled(task.train.size(), seed, step / per_epoch);
    const std::size_t first = std::size_t(step % per_epoch) * kBatch;
    const std::size_t count = std::min<std::size_t>(kBatch, task.train.size() - first);
    std::vector<std::int32_t> rows(order.begin() + first, order.begin() + first + count), label;
    std::vector<float> target;
    for (std::int32_t r : rows) {
      label.push_back(task.train[r].label);
      target.push_back(task.train[r].target);
    }
    const Tensor out = top(gather(Tensor(x), Array::of(rows)));
    Gradients grads = backward(task.goal == Goal::regression
                                   ? squared_error(out, Array::of(target), double(count))
                                   : cross_entropy(out, Array::of(label), double(count)));
    optimizer.step(grads, schedule.at(step));
  }
}

constexpr int kFirstRates = 5, kFurtherRates = 4;

// 1e-4, 3e-4, 1e-3, 3e-3, 1e-2 and so on in both directions, as they are written.
double rate_at(int i) {
  const int decade = i >= 0 ? i / 2 : (i - 1) / 2;
  return std::stod(fmt::format("{}e{}", i % 2 == 0 ? 1 : 3, decade - 4));
}

}  // namespace

FeatureResult feature_transfer(Model& whole, const EncodedTask& task, Options& options,
                               std::uint64_t seed) {
  Model& base = whole.encoder ? *whole.encoder : whole;
  check(task.goal != Goal::language, "features: task {} has no labels to learn", task.name);
  const int layer = options.integer("layer", base.arch().layers, 0);
  check(layer <= base.arch().layers, "features: layer={}; the model has {} layers", layer,
        base.arch().layers);
  const std::string pool = options.choice("pool", "mean", {"mean", "cls", "last"});
  const bool mlp = options.choice("model", "linear", {"linear", "mlp"}) == "mlp";
  const int hidden = mlp ? options.integer("hidden", 128) : 0;
  const bool grow = options.choice("rates", "five", {"five", "grow"}) == "grow";
  options.finish();
  Vectors v{pooled_rows(base, task, task.train, layer, pool),
            pooled_rows(base, task, task.dev, layer, pool),
            pooled_rows(base, task, task.test, layer, pool)};
  standardise(v);
  FeatureResult best;
  const auto attempt = [&](double lr) {
    Top top(task, {.seed = static_cast<std::uint32_t>(seed)}, base.arch().width, hidden);
    train(task, top, v.train, lr, static_cast<std::uint32_t>(seed));
    const Score dev = score(task, task.dev, top, v.dev);
    const bool better = best.tried.empty() || dev.metric > best.dev.metric;
    best.tried.push_back({lr, dev.metric});
    if (!better) return;
    best.rate = lr;
    best.dev = dev;
    best.test = score(task, task.test, top, v.test);
    best.parameters = 0;
    for (const auto& p : top.parameters) best.parameters += p->value.numel();
  };
  int low = 0, high = kFirstRates - 1;
  for (int i = low; i <= high; ++i) attempt(rate_at(i));
  while (grow && best.rate == rate_at(low) && low > -kFurtherRates) attempt(rate_at(--low));
  while (grow && best.rate == rate_at(high) && high < kFirstRates - 1 + kFurtherRates)
    attempt(rate_at(++high));
  std::ranges::sort(best.tried);
  return best;
}

}  // namespace graft
