#include "experiments/runs/run_parts.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>

#include "nn/optim/diverged.h"
#include "tensor/cuda/runtime.h"
#include "tensor/hash.h"

namespace graft {
namespace {

// Whether what is learned is the next token, by the model's own vocabulary head.
bool by_token(const EncodedTask& task) { return task.goal == Goal::language || task.text(); }

Tensor batch_loss(const Model& model, const EncodedTask& task, const Batch& batch, Ctx& ctx) {
  if (by_token(task)) return model.lm_loss(batch, ctx);
  return model.head().loss(model.scores(batch, ctx), batch);
}

double label_count(const EncodedTask& task, const Batch& batch) {
  if (!by_token(task)) return batch.sequences();
  double n = 0;
  for (std::int32_t l : batch.token_label) n += l >= 0;
  return n;
}

// The training examples that a task is described by to the adapters that ask for it.
Batch first_examples(const EncodedTask& task, const Adaptation& adaptation) {
  const std::size_t n =
      std::min(task.train.size(), static_cast<std::size_t>(std::max(1, adaptation.examples())));
  std::vector<std::int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  return make_batch(task, task.train, order, 0, n);
}

}  // namespace

double StepLoss::value() const {
  double total = 0;
  for (const Array& part : parts_) total += part.item() / scale_;
  check_converges(std::isfinite(total), "train: the loss is {} (method {}, lr {}); lower the rate",
                  total, of_, rate_);
  return total;
}

StepLoss gather_gradients(const Model& model, const Adaptation& adaptation, const EncodedTask& task,
                          const RunSpec& spec, const std::vector<std::int32_t>& order,
                          std::size_t first, std::size_t count, Key key, Gradients& grads,
                          FrozenRows* frozen, double scale) {
  double divisor = 0;
  if (spec.micro > 0 || scale != 1)
    divisor = label_count(task, make_batch(task, task.train, order, first, count));
  const std::size_t step = spec.micro > 0 ? spec.micro : count;
  StepLoss total(adaptation.spec(), spec.lr, scale);
  for (std::size_t at = 0; at < count; at += step) {
    Batch batch = make_batch(task, task.train, order, first + at, std::min(step, count - at));
    batch.divisor = divisor / scale;
    if (model.build().device == Device::cuda) batch = filled_up(std::move(batch), model.arch());
    Ctx ctx{.train = true,
            .key = key,
            .checkpoint = checkpoint_named(spec.checkpoint),
            .frozen = frozen};
    Tensor loss = batch_loss(model, task, batch, ctx);
    if (at == 0) {
      const Tensor penalty = adaptation.penalty();
      if (penalty.defined()) loss = loss + (scale == 1 ? penalty : penalty * scale);
    }
    cuda::begin_gathered();  // it computes the loss while backward is noted
    backward(loss, grads, {}, at + step >= count);
    total.add(loss);
  }
  return total;
}

std::uint64_t hash_of(const Parameters& parameters) {
  Hash h;
  for (const auto& p : parameters) h.word(p->value.value().hash());
  return h.value();
}

std::uint64_t hash_of(const EncodedTask& task) {
  Hash h;
  h.bytes(task.metric.data(), task.metric.size());  // the best epoch is chosen by it
  for (const auto* split : {&task.train, &task.dev, &task.test})
    for (const EncodedExample& e : *split) {
      h.word(e.token.size());
      for (std::int32_t t : e.token) h.word(static_cast<std::uint64_t>(t));
      for (std::int32_t t : e.type) h.word(static_cast<std::uint64_t>(t));
      if (task.text()) h.word(e.source.size());
      for (std::int32_t t : e.source) h.word(static_cast<std::uint64_t>(t));
      h.word(static_cast<std::uint64_t>(e.label));
      h.word(std::bit_cast<std::uint32_t>(e.target));
    }
  return h.value();
}

std::uint64_t hash_of(Head& head) {
  Hash h;
  head.each([&](Weight& w) { h.word(w.value().value().hash()); });
  return h.value();
}

std::vector<std::uint32_t> ids_of(const std::vector<EncodedExample>& examples,
                                  const std::vector<std::int32_t>& order, std::size_t first,
                                  std::size_t count) {
  std::vector<std::uint32_t> ids;
  for (std::size_t i = first; i < first + count; ++i)
    ids.push_back(examples[static_cast<std::size_t>(order[i])].id);
  return ids;
}

void begin(const Model& base, const std::vector<const EncodedTask*>& tasks, const RunSpec& spec,
           Adaptation& adaptation, const Parameters& heads, const RunPlaces& places) {
  std::vector<Batch> examples;
  for (const EncodedTask* task : tasks) examples.push_back(first_examples(*task, adaptation));
  adaptation.calibrate(base, examples);
  Parameters stored = adaptation.stored();
  check(places.start || !places.resume.empty() ||
            std::ranges::none_of(stored, [](const auto& p) { return begins_anew(*p); }),
        "train: method {}: new= adds a task to a saved adapter; say which with --init FOLDER",
        spec.method);
  stored.insert(stored.end(), heads.begin(), heads.end());
  if (places.start) places.start(stored);
}

}  // namespace graft
