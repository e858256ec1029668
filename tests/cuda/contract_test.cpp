// Methods on the device: the contract of every row of the table, on every small body. Where the
// device is emulated no more of it than half precision, and the row that GRAFT_CONTRACT names.
#include <algorithm>
#include <cstdlib>

#include "peft/contract_trial.h"
#include "peft/methods.h"
#include "tests/cuda/device_cases.h"

using namespace graft;
using graft::testing::device_is_there;

TEST_CASE("every method computes in half precision with masters in f32") {
  if (!device_is_there()) return;
  const Methods methods = all_methods();
  std::size_t row = 0;
  for (const Method& m : methods) {
    ++row;
    for (const Body body : kBodies) {
#ifdef GRAFT_SANITIZED  // ten times slower still
      if (m.name != "lora" && m.name != "prefix" && m.name != "layernorm") continue;
#endif
#ifdef GRAFT_CUDA_IS_EMULATED  // one body for each method: they take seconds there
      if (body != kBodies[row % std::size(kBodies)]) continue;
#endif
      CAPTURE(m.example);
      CAPTURE(std::string(name(body)));
      Contract contract{methods, m.example, body, false, false, Device::cuda, {}};
      contract.in_half_precision();
      REQUIRE(contract.findings.size() == 1);
      CAPTURE(contract.findings[0].detail);
      CHECK(contract.findings[0].kept);
    }
  }
}

TEST_CASE("methods keep the contract on the device") {
  if (!device_is_there()) return;
  const Methods methods = all_methods();
#ifdef GRAFT_CUDA_IS_EMULATED  // only the method that is asked for: each takes minutes
  const char* const asked = std::getenv("GRAFT_CONTRACT");
  if (!asked) {
    MESSAGE(
        "SKIPPED: GRAFT_CONTRACT names no method; each takes minutes where the device is emulated");
    return;
  }
  REQUIRE(std::ranges::count(methods, std::string(asked), &Method::name) == 1);
#endif
  for (const Method& m : methods) {
#ifdef GRAFT_CUDA_IS_EMULATED
    if (m.name != asked) continue;
#endif
    for (const Body body : kBodies) {
      CAPTURE(m.example);
      CAPTURE(std::string(name(body)));
      for (const Clause& c : run_contract(methods, m.example, body, Device::cuda)) {
        CAPTURE(c.text);
        CAPTURE(c.detail);
        CHECK(c.kept);
      }
    }
  }
}
