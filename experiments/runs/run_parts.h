// The parts that runs of one task and of several share.
#pragma once

#include "experiments/runs/computing.h"
#include "experiments/runs/finetune.h"

namespace graft {

// A step's loss, whose numbers may still be on their way from the device.
class StepLoss {
 public:
  // The parts are `scale` times the loss's.
  StepLoss(std::string of, double rate, double scale)
      : of_(std::move(of)), rate_(rate), scale_(scale) {}
  void add(const Tensor& part) { parts_.push_back(part.value()); }
  // Waits for them; throws where they are not finite. So parameters may have moved by then.
  double value() const;

 private:
  std::string of_;
  double rate_, scale_;
  std::vector<Array> parts_;
};

// One optimizer step's gradients of rows [first, first + count) of `order`, micro-batch after
// micro-batch: the bits do not depend on the cut, but where a method edits weights
// (Adapter::edits_weights). On a device micro-batches are filled up (filled_up). The gradients are
// those of `scale` times the loss.
StepLoss gather_gradients(const Model&, const Adaptation&, const EncodedTask&, const RunSpec&,
                          const std::vector<std::int32_t>& order, std::size_t first,
                          std::size_t count, Key, Gradients&, FrozenRows* = nullptr,
                          double scale = 1);

std::uint64_t hash_of(const Parameters&);
// Of every token and label: two tasks with one name are not one task.
std::uint64_t hash_of(const EncodedTask&);
// Of the head's start: a checkpoint's own is no new one.
std::uint64_t hash_of(Head&);

// A model's own head steps aside for a task's, and comes back.
class HeadAside {
 public:
  HeadAside(Model& model, std::unique_ptr<Head> head)
      : model_(model), before_(model.set_head(std::move(head))) {}
  ~HeadAside() { model_.set_head(std::move(before_)); }
  HeadAside(const HeadAside&) = delete;
  HeadAside& operator=(const HeadAside&) = delete;

 private:
  Model& model_;
  std::unique_ptr<Head> before_;
};

// Example::id of those rows.
std::vector<std::uint32_t> ids_of(const std::vector<EncodedExample>&,
                                  const std::vector<std::int32_t>& order, std::size_t first,
                                  std::size_t count);

// What the adapters start from beside their draws: each task's examples, a saved adapter.
void begin(const Model& base, const std::vector<const EncodedTask*>&, const RunSpec&, Adaptation&,
           const Parameters& heads, const RunPlaces&);

}  // namespace graft
