// What methods train in T5's published shapes, against figures from elsewhere.
#include <doctest/doctest.h>

#include "nn/models/presets.h"
#include "peft/methods.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::int64_t trained(const std::string& arch, const std::string& method) {
  Model model(arch_named(arch), {.storage = false});
  const Adaptation adaptation(all_methods(), method, model);
  CHECK(adaptation.count() == adaptation.formula());
  return adaptation.count();
}

}  // namespace

TEST_CASE("methods in T5-base train what the papers and PEFT count") {
  // PEFT's target_modules ["q", "v"] are those of every attention, the one across included: its
  // print_trainable_parameters says 884,736 || all params: 223,788,288.
  CHECK(trained("t5-base", "lora:r=8,on=q+v+xq+xv") == 884736);
  CHECK(trained("t5-base", "lora:r=8,on=q+v") == 589824);
  CHECK(trained("t5-base", "lora:r=8,on=xq+xv") == 294912);
  // 47,616 numbers of the norms (Mahabadi et al. 2021, 2106.04489: adapters train them, too), and
  // 48 adapters of width 24: 2 x 768 x 24 + 768 + 24 each.
  CHECK(trained("t5-base", "layernorm") == 47616);
  CHECK(trained("t5-base", "houlsby:m=24") == 48 * (2 * 768 * 24 + 768 + 24) + 47616);
  CHECK(trained("t5-base", "full") == 222903552);
  CHECK(trained("t5-v1_1-base", "full:vocabulary=yes") == 247577856);
  CHECK(trained("t5-v1_1-base", "full") == 247577856 - 32128 * 768);
  Model model(arch_named("t5-base"), {.storage = false});
  contains(error_of([&] { Adaptation(all_methods(), "bitfit", model); }), "no biases");
  contains(error_of([&] { Adaptation(all_methods(), "lora:on=gate", model); }),
           "no linear is called 'gate' in this model; it has q k v o xq xk xv xo up down");
}
