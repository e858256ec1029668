// Parameters: named arrays at a site, and how they start.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "autograd/tensor.h"
#include "nn/site.h"
#include "nn/slot.h"
#include "tensor/philox.h"

namespace graft {

// How to build: without storage a model is its shapes alone (what `count` needs).
struct Build {
  Dtype dtype = Dtype::f32;
  bool storage = true;
  std::uint32_t seed = 0;
  bool draw = true;  // false: shapes, for values that are about to be put there from a file
  Device device = Device::cpu;
  ArrayKind kind() const { return {dtype, device}; }
};

// Start values. Drawn on the host at the address (seed; site and name), so that what else was built
// before makes no difference.
struct Init {
  enum class Kind { zeros, ones, normal, truncated, uniform };
  Kind kind = Kind::zeros;
  double scale = 0;  // standard deviation; `truncated` cuts at 2 of them; `uniform`: in +-scale
};
Array initial(const Build&, const Init&, Shape, const Site&, const std::string& name);

struct Parameter {
  Site site;
  std::string name;   // "weight", "bias", ...
  Tensor value;       // a constant (of f32, f64 or half precision), or a leaf if it trains
  bool decay = true;  // weight decay applies (not to biases and norms)
  double lr_scale = 1;
  bool trains() const { return value.needs_grad(); }
  std::string label() const { return to_string(site) + " " + name; }
};

struct Ctx;

// A place in a base model that holds a parameter. An adapter may put a trainable copy of its own
// there (class Owned); the base's bytes stay as they are and come back when the copy goes. Or it
// edits what modules read of it: w(ctx) is the value behind the edits.
class Weight {
 public:
  Weight() : cell_(std::make_shared<Cell>()) {}
  Weight(const Weight&) = delete;
  Weight& operator=(const Weight&) = delete;

  explicit operator bool() const { return cell_->now != nullptr; }  // some families have no biases
  const Tensor& value() const;  // undefined Tensor if there is none
  // What a module computes with. Edits get f32 where the base has half precision; without any it is
  // the value as it is stored.
  Tensor operator()(const Ctx&) const;
  Parameter& parameter() const { return *cell_->now; }
  void put(std::shared_ptr<Parameter> p) { *cell_ = {std::move(p), {}}; }

  Slot<Tensor, Ctx> edits;  // W -> W'

 private:
  friend class Owned;
  struct Cell {
    std::shared_ptr<Parameter> now;
    std::vector<std::shared_ptr<Parameter>> under;  // what that covers, the base's first
  };
  std::shared_ptr<Cell> cell_;
};

// Keeps `copy` in a Weight's place until it is dropped; then what was there before is back. Copies
// in one place may be dropped in any order: one that another stands in front of is taken out from
// under it. May outlive the model.
class Owned {
 public:
  Owned(Weight& place, std::shared_ptr<Parameter> copy);
  Owned(Owned&&) noexcept = default;
  Owned& operator=(Owned&&) = delete;
  ~Owned();

  // Steps aside, so that what was there before is back, and stands there again. Both throw, naming
  // the parameter, where another copy is in the way.
  void off();
  void on();
  // The copies that stand in front of this one: the place has the last of them.
  std::vector<std::shared_ptr<Parameter>> in_front() const;
  const Parameter& copy() const { return *copy_; }

 private:
  std::weak_ptr<Weight::Cell> place_;
  std::shared_ptr<Parameter> copy_;
};

}  // namespace graft
