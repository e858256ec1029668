// The worked example of peft/README.md, computed again.
#include <doctest/doctest.h>

#include <filesystem>

#include "nn/files/atomic.h"
#include "peft/methods.h"

using namespace graft;

TEST_CASE("the worked example of peft/README.md is what LoRA computes") {
  Arch arch;
  arch.vocab = 8, arch.width = 4, arch.layers = 1, arch.heads = arch.kv_heads = 1;
  arch.hidden = 8, arch.positions = 4, arch.biases = false;
  Model model(arch, {});
  Linear& q = model.blocks[0]->attention.q;
  q.w.parameter().value =
      Tensor(Array::of<float>({1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}, {4, 4}));
  const Adaptation lora(all_methods(), "lora:r=1,alpha=2,on=q", model);
  const Parameters p = lora.parameters();
  REQUIRE(p.size() == 2);
  p[0]->value.value().copy_from(Array::of<float>({0.5f, 0.25f, 0, 0.5f}, {1, 4}));
  p[1]->value.value().copy_from(Array::of<float>({1, 0, -2, 4}, {4, 1}));
  const Tensor h = q(Tensor(Array::of<float>({1, 2, 0, -1}, {1, 4})), Ctx{});
  CHECK(h.value().to_vector() == std::vector<double>{2, 2, -2, 3});
  CHECK(lora.count() == 8);

  const auto readme = std::filesystem::path(__FILE__).parent_path() / "../../peft/README.md";
  const std::string text = read_file(readme);
  for (const char* row :
       {"| x | (1, 2, 0, -1) |", "| A | (0.5, 0.25, 0, 0.5) |", "| B | (1, 0, -2, 4) |",
        "| h | (2, 2, -2, 3) |", "| numbers that train | 8 |"})
    CHECK_MESSAGE(text.find(row) != std::string::npos, row);
}
