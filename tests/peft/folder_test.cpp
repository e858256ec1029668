// Adapters saved and loaded in one call each, and the line about what trains.
#include "peft/folder.h"

#include <doctest/doctest.h>

#include "nn/models/presets.h"
#include "peft/files.h"
#include "peft/methods.h"
#include "peft/trainable.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("an adapter saved with its base's hash is put back on that base, and on no other") {
  const Folder folder;
  const Arch arch = llama_like();
  SmallModel model(arch), same(arch);
  const std::uint64_t hash = model.hash();
  for (const char* spec : {"lora:r=2,on=q+v", "layernorm", "houlsby:m=3|lora:r=1,on=o"}) {
    CAPTURE(spec);
    const Adaptation made(all_methods(), spec, model);
    for (const auto& p : made.parameters()) add_noise(*p, 0.1);
    save_adapter(folder / "adapter", made, "somewhere", hash);
    const Batch batch = ragged(arch, {4, 7});
    CHECK(!same_bits(rows_of(model, batch).value(), rows_of(same, batch).value()));
    {
      const auto loaded = load_adapter(folder / "adapter", all_methods(), same);
      CHECK(loaded->spec() == spec);
      CHECK(same_bits(rows_of(model, batch).value(), rows_of(same, batch).value()));
    }
    CHECK(same.hash() == hash);
  }
  SmallModel other(arch, Dtype::f32, 0.3);
  contains(error_of([&] { load_adapter(folder / "adapter", all_methods(), other); }),
           "was trained on a base with other weights than this one, 'somewhere'");
  save_adapter(folder / "adapter", "layernorm", {}, nlohmann::json::object());
  contains(error_of([&] { load_adapter(folder / "adapter", all_methods(), same); }),
           "lacks 'base_hash'");
}

TEST_CASE(
    "the line about what trains counts what is added once, and what stands in the base never") {
  Model opt(arch_named("opt-6.7b"), {.storage = false});
  const std::int64_t base = opt.parameters();
  {
    const Adaptation lora(all_methods(), "lora:r=16,on=q+v", opt);
    CHECK(trainable_line(opt, lora) ==
          "trainable params: 8388608 || all params: 6666862592 || trainable%: "
          "0.12582542214183376");
  }
  const Adaptation bitfit(all_methods(), "bitfit|lora:r=1,on=q", opt);
  const TrainableCount n = count_trainable(opt, bitfit);
  CHECK(n.all == base + 32 * 2 * 4096);
  CHECK(n.trainable == bitfit.count());
}
