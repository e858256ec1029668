// Methods on the device: the contract of every row of the table, on every small body. Not where the
// device is emulated: a row takes minutes there.
#include "tests/cuda/device_cases.h"

#ifndef GRAFT_CUDA_IS_EMULATED
#include "peft/contract.h"
#include "peft/methods.h"

using namespace graft;
using graft::testing::device_is_there;

TEST_CASE("methods keep the contract on the device") {
  if (!device_is_there()) return;
  const Methods methods = all_methods();
  for (const Method& m : methods)
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
#endif
