// The loss over a vocabulary in runs of words where logits are infinite or NaN: what the loss over
// whole rows gives.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>

#include "tensor/kernels.h"

using namespace graft;

namespace {

constexpr std::int64_t kWords = 8192, kRun = 4096;
constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNan = std::nan("");

struct Filled {
  std::int64_t begin, end;
  double with;
};

// A row of zeros but for these parts.
Array row(const std::vector<Filled>& parts, Dtype dtype) {
  Array logits = Array::zeros({1, kWords}, dtype);
  for (const Filled& part : parts) logits.slice(1, part.begin, part.end).fill(part.with);
  return logits;
}

double in_runs(const Array& logits, std::int32_t label) {
  const Array of = Array::of<std::int32_t>({label});
  Array lse = Array::full({1}, -kInf, logits.kind()), picked = Array::zeros({1}, logits.kind());
  for (std::int64_t v = 0; v < kWords; v += kRun)
    kernels::log_sum_exp_join(lse, picked, logits.slice(1, v, v + kRun), of, v);
  Array loss = Array::empty({1}, logits.kind());
  kernels::label_loss(loss, lse, picked, of);
  return loss.item();
}

double whole(const Array& logits, std::int32_t label) {
  Array loss = Array::empty({1}, logits.kind());
  kernels::cross_entropy(loss, logits, Array::of<std::int32_t>({label}));
  return loss.item();
}

}  // namespace

TEST_CASE("a run of words that are all forbidden adds nothing to the loss, first or last") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    const Array last = row({{kRun, kWords, -kInf}}, dtype), first = row({{0, kRun, -kInf}}, dtype);
    CHECK(in_runs(last, 3) == doctest::Approx(std::log(4096.0)).epsilon(1e-6));
    CHECK(in_runs(first, 5000) == doctest::Approx(std::log(4096.0)).epsilon(1e-6));
    CHECK(in_runs(first, 3) == kInf);  // the label is one of those
    const Array one = row({{0, 5000, -kInf}, {5001, kWords, -kInf}}, dtype);
    CHECK(in_runs(one, 5000) == 0);
    CHECK(std::isnan(in_runs(row({{0, kWords, -kInf}}, dtype), 3)));
  }
}

TEST_CASE("a NaN or an infinite logit in any run makes the loss NaN, as over whole rows") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64})
    for (const double bad : {kNan, -kNan, kInf})
      for (const std::int64_t at : {0, 1, 77, 4095, 4096, 5000, 8191})
        for (const double others : {0.0, -kInf})
          for (const Filled around : {Filled{0, kRun, others}, {kRun, kWords, others}}) {
            CAPTURE(bad);
            CAPTURE(at);
            const Array logits = row({around, {at, at + 1, bad}}, dtype);
            REQUIRE(std::isnan(whole(logits, 3)));
            CHECK(std::isnan(in_runs(logits, 3)));
            CHECK(in_runs(logits, -1) == 0);
          }
}

TEST_CASE("some forbidden words in every run leave the loss that whole rows have") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f64}) {
    Array logits = row({}, dtype);
    for (std::int64_t i = 0; i < kWords; ++i)
      logits.slice(1, i, i + 1).fill(i % 3 == 0 ? -kInf : 0.001 * static_cast<double>(i % 1009));
    CHECK(in_runs(logits, 5000) == doctest::Approx(whole(logits, 5000)).epsilon(1e-6));
  }
}
