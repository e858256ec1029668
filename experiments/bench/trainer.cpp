#include "experiments/bench/trainer.h"

#include "experiments/bench/yardstick.h"
#include "tensor/cuda/runtime.h"

namespace graft {
namespace {

Parameters with_head(const Adaptation& adaptation, Model& model) {
  Parameters all = adaptation.parameters();
  const Parameters head = train_head(model);
  all.insert(all.end(), head.begin(), head.end());
  return all;
}

}  // namespace

Trainer::Trainer(std::unique_ptr<Model> model, const std::string& spec, const OptimSpec& optim)
    : model_(std::move(model)),
      adaptation_(all_methods(), spec, *model_),
      optimizer_(with_head(adaptation_, *model_), optim) {}

Tensor Trainer::loss(const Batch& batch, Ctx& ctx) const {
  if (!model_->has_head()) return model_->lm_loss(batch, ctx);
  return model_->head().loss(model_->scores(batch, ctx), batch);
}

StepResult Trainer::step(const Batch& batch, double rate, Checkpoint checkpoint) {
  StepResult out;
  const double begun = now();
  cuda::gathered(model_->build().device, [&] {
    Ctx ctx{.train = true, .checkpoint = checkpoint, .frozen = frozen_.get()};
    // As runs have it (gather_gradients).
    const bool there = model_->build().device == Device::cuda;
    const Batch full = there ? filled_up(batch, model_->arch()) : Batch();
    const Tensor l = loss(there ? full : batch, ctx);
    cuda::begin_gathered();  // it computes the loss while backward is noted
    Gradients grads = backward(l);
    optimizer_.start(grads, rate);
    out.loss = l.item();
    out.norm = optimizer_.finish();
  });
  out.seconds = now() - begun;
  return out;
}

std::size_t Trainer::kept_bytes(const Batch& batch, Checkpoint checkpoint) {
  std::vector<Array> own;
  model_->each([&](Weight& w) { own.push_back(w.value().value()); });
  for (const auto& p : parameters()) own.push_back(p->value.value());
  Ctx ctx{.checkpoint = checkpoint};
  const Sequence s = model_->run_blocks(model_->embed(batch, ctx), ctx, 0, model_->arch().layers);
  return explain(s.rows, own).kept_bytes;
}

std::int64_t Trainer::trainable() const {
  std::int64_t n = 0;
  for (const auto& p : parameters()) n += p->value.numel();
  return n;
}

}  // namespace graft
