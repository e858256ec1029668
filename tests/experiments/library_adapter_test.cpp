// Adapters saved by the library's one call, and the commands that open them.
#include <doctest/doctest.h>

#include "peft/folder.h"
#include "peft/methods.h"
#include "peft/peft_folder.h"
#include "peft/values.h"
#include "tests/experiments/small_language.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("an adapter that the library saved can be exported, started from and written with") {
  const Shelf shelf;
  const std::string at = shelf.folder.path.string() + "/";
  const auto run = [&](const std::string& arguments) {
    const Said s = graft_says(shelf, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == 0);
    return s.text;
  };
  const auto model = load_model(shelf.folder / "decoder");
  const std::uint64_t hash = model->hash();
  const Adaptation made(all_methods(), "lora:r=2,on=q+v", *model);
  for (const auto& p : made.parameters()) add_noise(*p, 0.1);
  save_adapter(at + "library", made, "decoder", hash);

  contains(run("export " + at + "library --out " + at + "peft"), "PEFT folder in ");
  const PeftAdapter read = read_peft_folder(at + "peft", model->arch());
  CHECK(read.task_type == "CAUSAL_LM");
  CHECK(read.head.head.empty());
  CHECK(read.spec == "lora:r=2,alpha=2,on=q+v");
  for (const auto& p : made.parameters())
    CHECK(same_bits(read.values.at(p->label()), p->value.value()));

  const std::string task = " --model decoder --task '" + shelf.task() + "'";
  contains(
      run("train" + task + " --init " + at + "library --epochs 1 --lr 1e-9 --out " + at + "on"),
      "starts from " + at + "library: lora:r=2,on=q+v");
  const AdapterValues after = read_adapter_values(at + "on/adapter");
  CHECK(after.size() == made.parameters().size());
  for (const auto& p : made.parameters())
    CHECK(difference(after.at(p->label()), p->value.value()) < 1e-5);
  contains(run("generate --adapter " + at + "library --prompt wolf --prompt hen --max-tokens 4"),
           "wolf\n  -> ");
}
