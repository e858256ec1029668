// Optimizers against PyTorch and by hand; clipping, resuming, schedules.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "nn/optim/loss_scale.h"
#include "nn/optim/optimizer.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Kind = OptimSpec::Kind;

// A matrix that decays and a vector that does not, and their gradients at step t (from 1):
// cos(0.9 i + k) and sin(1.3 i + 0.7 t + k) at element i of parameter k.
struct Two {
  explicit Two(Dtype dtype = Dtype::f64) {
    for (int k = 0; k < 2; ++k) {
      auto p = std::make_shared<Parameter>();
      p->site = {Stack::encoder, k, Part::q};
      p->name = k == 0 ? "weight" : "bias";
      p->decay = k == 0;
      const Shape shape = k == 0 ? Shape{2, 3} : Shape{4};
      p->value = Tensor::leaf(filled(shape, 0.9, k, true).to(dtype), p->label());
      parameters.push_back(p);
    }
  }
  static Array filled(const Shape& shape, double step, double from, bool cosine) {
    std::vector<double> v(static_cast<std::size_t>(count(shape)));
    for (std::size_t i = 0; i < v.size(); ++i) {
      const double angle = step * static_cast<double>(i) + from;
      v[i] = cosine ? std::cos(angle) : std::sin(angle);
    }
    return Array::of(v, shape);
  }
  Gradients gradients(int t) const {
    Gradients grads;
    for (int k = 0; k < 2; ++k) {
      const Tensor& p = parameters[static_cast<std::size_t>(k)]->value;
      backward(1.0 * p, grads, filled(p.shape(), 1.3, 0.7 * t + k, false).to(p.dtype()));
    }
    return grads;
  }
  // Five steps at rate 0.02, unclipped.
  void run(OptimSpec spec, int from = 1, int to = 5) {
    spec.clip = 0;
    Optimizer optimizer(parameters, spec);
    for (int t = from; t <= to; ++t) {
      Gradients grads = gradients(t);
      optimizer.step(grads, 0.02);
    }
  }
  void expect(const std::vector<std::vector<double>>& values) const {
    for (std::size_t k = 0; k < 2; ++k) {
      const auto got = parameters[k]->value.value().to_vector();
      for (std::size_t i = 0; i < got.size(); ++i)
        CHECK(got[i] == doctest::Approx(values[k][i]).epsilon(1e-12));
    }
  }
  Parameters parameters;
};

std::vector<Array> copies(const Parameters& parameters) {
  std::vector<Array> all;
  for (const auto& p : parameters) all.push_back(p->value.value().clone());
  return all;
}

}  // namespace

// The expected values of the next four cases are those of PyTorch 2.15.0 in f64: torch.optim.AdamW,
// SGD and Adafactor with weight_decay for the matrix alone.
TEST_CASE("AdamW is PyTorch's, its decay decoupled and not on biases") {
  Two two;
  two.run({.kind = Kind::adamw, .beta2 = 0.98, .eps = 1e-6, .decay = 0.1});
  two.expect({{0.899499001901806, 0.573597630974216, -0.134004981612703, -0.825819967151845,
               -0.907914045580429, -0.295106441750642},
              {0.481501795361162, -0.283255873880108, -0.86192538234429, -0.839801440542133}});
}

TEST_CASE("SGD with momentum is PyTorch's, its decay in the gradient and not on biases") {
  Two two;
  two.run({.kind = Kind::sgd, .decay = 0.1, .momentum = 0.9});
  two.expect({{0.801735497065988, 0.567051579745992, -0.0696447573756857, -0.76101084742424,
               -0.961025660720859, -0.37162280851031},
              {0.453172147309394, -0.202355614070396, -0.790392800683718, -0.887805536310353}});
}

TEST_CASE("Adafactor scaled by size is PyTorch's, for matrices and vectors") {
  Two two;
  two.run({.kind = Kind::adafactor, .decay = 0, .scale_by_size = true});
  two.expect({{0.956759960690465, 0.630673564366349, -0.172888079720427, -0.897459055269347,
               -0.951255333103585, -0.250691860552047},
              {0.543902276636178, -0.276118100158441, -0.920619162742023, -0.884670449682703}});
}

TEST_CASE("Adafactor's decay is decoupled, and not on biases") {
  Two two;
  two.run({.kind = Kind::adafactor, .decay = 0.1, .scale_by_size = true});
  two.expect({{0.947146004390643, 0.62440897142732, -0.171060160899491, -0.888506997890187,
               -0.941886646615787, -0.248273207424812},
              {0.543902276636178, -0.276118100158441, -0.920619162742023, -0.884670449682703}});
}

TEST_CASE("Adafactor with a plain rate is the paper's algorithms 4 and 5") {
  // Worked out in f64 from the paper's equations (NumPy).
  Two two;
  two.run({.kind = Kind::adafactor, .decay = 0});
  two.expect({{0.939004416876551, 0.634992014218274, -0.1503654754437, -0.895045578299718,
               -0.974165796010041, -0.266885201642645},
              {0.546035895986984, -0.254723519399604, -0.911468219193225, -0.901508639883825}});
}

TEST_CASE("a parameter's own rate multiplies the step") {
  for (const Kind kind : {Kind::adamw, Kind::sgd, Kind::adafactor}) {
    Two twice, plain;
    twice.parameters[1]->lr_scale = 2;
    const auto before = copies(plain.parameters);
    twice.run({.kind = kind, .decay = 0}, 1, 1);
    plain.run({.kind = kind, .decay = 0}, 1, 1);
    const auto moved = [&](const Two& t, std::size_t k) {
      return t.parameters[k]->value.value().at(2) - before[k].at(2);
    };
    CHECK(moved(twice, 0) == moved(plain, 0));
    CHECK(moved(twice, 1) == doctest::Approx(2 * moved(plain, 1)));
  }
}

TEST_CASE("AdamW clips within its pass: the bits of a gradient that is scaled first") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    Two clipped(dtype), scaled(dtype);
    Optimizer within(clipped.parameters, {.clip = 0.5}), first(scaled.parameters, {.clip = 0});
    for (int t = 1; t <= 3; ++t) {
      Gradients grads = clipped.gradients(t), smaller = scaled.gradients(t);
      const double norm = within.step(grads, 0.02);
      REQUIRE(norm > 0.5);
      for (const auto& p : scaled.parameters) {
        Array& g = smaller[p->value];
        kernels::scale(g, g, 0.5 / norm);
      }
      first.step(smaller, 0.02);
    }
    for (std::size_t k = 0; k < 2; ++k)
      CHECK(same_bits(clipped.parameters[k]->value.value(), scaled.parameters[k]->value.value()));
  }
}

TEST_CASE("the gradient is clipped by its norm over all parameters") {
  // Without momentum a step of SGD is the rate times the clipped gradient.
  const OptimSpec spec{.kind = Kind::sgd, .decay = 0, .momentum = 0, .clip = 0.5};
  Two two;
  const auto before = copies(two.parameters);
  Optimizer optimizer(two.parameters, spec);
  Gradients grads = two.gradients(1), untouched = two.gradients(1);
  const double norm = optimizer.step(grads, 0.1);
  CHECK(norm == doctest::Approx(2.294560467067961));  // torch.nn.utils.clip_grad_norm_
  for (std::size_t k = 0; k < 2; ++k)
    for (std::int64_t i = 0; i < before[k].numel(); ++i) {
      const double g = untouched[two.parameters[k]->value].at(i);
      CHECK(two.parameters[k]->value.value().at(i) ==
            doctest::Approx(before[k].at(i) - 0.1 * g * 0.5 / norm));
    }
  Two small;
  Optimizer large({small.parameters}, {.kind = Kind::sgd, .decay = 0, .momentum = 0, .clip = 3});
  grads = small.gradients(1);
  large.step(grads, 0.1);
  CHECK(same_bits(grads[small.parameters[0]->value], untouched[two.parameters[0]->value]));
}

TEST_CASE("gradients that are scaled by a power of two take the same step, to the last bit") {
  for (const Kind kind : {Kind::adamw, Kind::sgd, Kind::adafactor})
    for (const double clip : {0.0, 0.5}) {
      Two plain(Dtype::f32), scaled(Dtype::f32);
      Optimizer one(plain.parameters, {.kind = kind, .clip = clip}),
          other(scaled.parameters, {.kind = kind, .clip = clip});
      for (int t = 1; t <= 3; ++t) {
        Gradients grads = plain.gradients(t), larger = scaled.gradients(t);
        for (const auto& p : scaled.parameters) {
          Array& g = larger[p->value];
          kernels::scale(g, g, 4096);
        }
        const double norm = one.step(grads, 0.02);
        other.start(larger, 0.02, 4096);
        CHECK(!other.overflowed());
        CHECK(other.finish() == norm);
      }
      for (std::size_t k = 0; k < 2; ++k)
        CHECK(same_bits(plain.parameters[k]->value.value(), scaled.parameters[k]->value.value()));
    }
}

TEST_CASE("a step whose gradient overflows may be started again") {
  for (const Kind kind : {Kind::adamw, Kind::sgd, Kind::adafactor}) {
    Two two(Dtype::f32), want(Dtype::f32);
    Optimizer optimizer(two.parameters, {.kind = kind}), plain(want.parameters, {.kind = kind});
    Gradients grads = two.gradients(1);
    grads[two.parameters[0]->value].data<float>()[1] = INFINITY;
    LossScale scale = LossScale::of(Dtype::f16);
    optimizer.start(grads, 0.02, scale.value);
    CHECK(optimizer.overflowed());
    CHECK(scale.lower());
    grads = two.gradients(1);
    for (const auto& p : two.parameters)
      kernels::scale(grads[p->value], grads[p->value], scale.value);
    optimizer.start(grads, 0.02, scale.value);
    CHECK(!optimizer.overflowed());
    Gradients plainly = want.gradients(1);
    CHECK(optimizer.finish() == plain.step(plainly, 0.02));
    for (std::size_t k = 0; k < 2; ++k)
      CHECK(same_bits(two.parameters[k]->value.value(), want.parameters[k]->value.value()));
    CHECK(optimizer.steps() == 1);
  }
}

TEST_CASE("the loss's scale is halved by an overflow and doubled after 2000 steps without") {
  LossScale f32 = LossScale::of(Dtype::f32), f16 = LossScale::of(Dtype::f16);
  CHECK(f32.value == 1);
  CHECK(LossScale::of(Dtype::bf16).value == 1);
  CHECK(!f32.lower());
  for (int i = 0; i < 3000; ++i) f32.step_done();
  CHECK(f32.value == 1);
  CHECK(f16.lower());
  CHECK(f16.value == LossScale::kFirst / 2);
  for (int i = 0; i < 1999; ++i) f16.step_done();
  CHECK(f16.value == LossScale::kFirst / 2);
  f16.step_done();
  CHECK(f16.value == LossScale::kFirst);
  for (int i = 0; i < 100000; ++i) f16.step_done();
  CHECK(f16.value == LossScale::kMost);
  while (f16.value > 1) CHECK(f16.lower());
  CHECK(!f16.lower());
}

TEST_CASE("a gradient that is missing or not a number is an error by name, and nothing changes") {
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()})
    for (const Kind kind : {Kind::adamw, Kind::sgd, Kind::adafactor}) {
      Two two(Dtype::f32);
      Optimizer optimizer(two.parameters, {.kind = kind});
      Gradients grads = two.gradients(1);
      optimizer.step(grads, 0.02);
      const auto before = copies(two.parameters);
      std::map<std::string, Array> state;
      for (const auto& [name, array] : optimizer.state()) state[name] = array.clone();
      Gradients none;
      contains(error_of([&] { optimizer.step(none, 0.02); }), "'encoder 0 q weight'");
      grads = two.gradients(2);
      grads[two.parameters[1]->value].data<float>()[2] = static_cast<float>(bad);
      const std::string message = error_of([&] { optimizer.step(grads, 0.02); });
      contains(message, "'encoder 1 q bias' is not finite at step 2");
      for (std::size_t k = 0; k < 2; ++k)
        CHECK(same_bits(before[k], two.parameters[k]->value.value()));
      for (const auto& [name, array] : optimizer.state()) CHECK(same_bits(state.at(name), array));
      CHECK(optimizer.steps() == 1);
    }
}

TEST_CASE("an optimizer loaded with another's state goes on with its bits") {
  for (const Kind kind : {Kind::adamw, Kind::sgd, Kind::adafactor}) {
    const OptimSpec spec{.kind = kind};
    Two whole(Dtype::f32), part(Dtype::f32), resumed(Dtype::f32);
    Optimizer a(whole.parameters, spec), b(part.parameters, spec);
    for (int t = 1; t <= 6; ++t) {
      Gradients grads = whole.gradients(t);
      a.step(grads, 0.01);
      if (t > 3) continue;
      grads = part.gradients(t);
      b.step(grads, 0.01);
    }
    Optimizer c(resumed.parameters, spec);
    c.load(b.state(), b.steps());
    for (std::size_t k = 0; k < 2; ++k)
      resumed.parameters[k]->value.value().copy_from(part.parameters[k]->value.value());
    for (int t = 4; t <= 6; ++t) {
      Gradients grads = resumed.gradients(t);
      c.step(grads, 0.01);
    }
    CHECK(c.steps() == 6);
    for (std::size_t k = 0; k < 2; ++k)
      CHECK(same_bits(whole.parameters[k]->value.value(), resumed.parameters[k]->value.value()));
  }
}

TEST_CASE("state that does not fit is an error that names what is wrong") {
  Two two;
  Optimizer optimizer(two.parameters, {});
  auto state = optimizer.state();
  CHECK(state.size() == 4);
  auto changed = state;
  changed.erase("encoder 0 q weight mean");
  contains(error_of([&] { optimizer.load(changed, 1); }), "'encoder 0 q weight mean' is missing");
  changed = state;
  changed["encoder 1 q bias square"] = Array::zeros({5}, Dtype::f64);
  contains(error_of([&] { optimizer.load(changed, 1); }), "[5]");
  changed = state;
  changed["more"] = Array::zeros({5});
  contains(error_of([&] { optimizer.load(changed, 1); }), "5 entries, of which this run uses 4");
}

TEST_CASE("what cannot be optimized is refused") {
  contains(error_of([] { Optimizer({}, {}); }), "nothing to train");
  Two two;
  two.parameters[1]->value = two.parameters[1]->value.detach();
  contains(error_of([&] { Optimizer(two.parameters, {}); }), "'encoder 1 q bias' is frozen");
  contains(error_of([] { optim_named("adam"); }), "adamw, sgd and adafactor");
  contains(error_of([] { schedule_named("step"); }), "constant, linear, cosine and trapezoid");
}

TEST_CASE("a model's biases and norms do not decay, its matrices do") {
  SmallModel model(small_arch(Stack::encoder));
  std::size_t decays = 0;
  model.each([&](Weight& w) {
    const Parameter& p = w.parameter();
    CAPTURE(p.label());
    CHECK(p.decay == (p.value.shape().size() == 2));
    decays += p.decay;
  });
  CHECK(decays == 2 + 2 * 6);
}

TEST_CASE("schedules rise over the warm-up, then follow their kind") {
  using S = Schedule::Kind;
  const auto at = [](S kind, int step, double floor = 0, int cooldown = 0) {
    return Schedule{kind, 2, 12, 2, floor, cooldown}.at(step);
  };
  for (const S kind : {S::constant, S::linear, S::cosine, S::trapezoid}) {
    CHECK(at(kind, 0) == 1);
    CHECK(at(kind, 1) == 2);
    CHECK(at(kind, 2) == 2);
  }
  CHECK(at(S::constant, 11) == 2);
  CHECK(at(S::linear, 7) == doctest::Approx(1));
  CHECK(at(S::linear, 11) == doctest::Approx(0.2));
  CHECK(at(S::linear, 12) == doctest::Approx(0));
  CHECK(at(S::linear, 7, 0.5) == doctest::Approx(1.5));
  CHECK(at(S::cosine, 7) == doctest::Approx(1));
  CHECK(at(S::cosine, 4) == doctest::Approx(1 + std::cos(std::acos(-1.0) / 5)));
  CHECK(at(S::cosine, 12, 0.1) == doctest::Approx(0.2));
  CHECK(at(S::trapezoid, 8, 0, 4) == 2);
  CHECK(at(S::trapezoid, 9, 0, 4) == doctest::Approx(1.5));
  CHECK(at(S::trapezoid, 11, 0, 4) == doctest::Approx(0.5));
  CHECK(at(S::trapezoid, 11, 0.2, 4) == doctest::Approx(2 * (0.2 + 0.8 / 4)));
  CHECK(Schedule{S::linear, 3, 5, 0}.at(0) == 3);
  CHECK(Schedule{S::linear, 3, 5, 5}.at(4) == 3);
  for (const S kind : {S::linear, S::cosine, S::trapezoid})  // beyond the end: the floor
    CHECK(at(kind, 20, 0.1, 4) == doctest::Approx(0.2));
}
