// Computing in half precision: what it asks for, what lies where meanwhile, and that it leaves the
// model as it was.
#include "nn/half_precision.h"

#include "peft/methods.h"
#include "tests/cuda/device_cases.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("half precision is for a device, and is half") {
  SmallModel model(small_arch(Stack::decoder));
  contains(error_of([&] { HalfPrecision half(model, Dtype::bf16); }),
           "the model lies on cpu, which computes in f32; give a device");
  contains(error_of([&] { HalfPrecision half(model, Dtype::f32); }), "f32 is none");
}

TEST_CASE("half precision keeps masters, stores the rest in halves, and gives every bit back") {
  if (!device_is_there()) return;
  const Arch arch = small_arch(Stack::decoder);
  const Batch batch = ragged(arch, {5, 2});
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    SmallModel model(arch);
    const std::uint64_t before = model.hash();
    model.move_to(Device::cuda);
    const Array rows = rows_of(model, batch).value();
    {
      const Adaptation adaptation(all_methods(), "layernorm", model);
      const HalfPrecision half(model, dtype);
      model.each([&](Weight& w) {
        CAPTURE(w.parameter().label());
        CHECK(w.value().dtype() == (w.value().needs_grad() ? Dtype::f32 : dtype));
        CHECK(w.value().value().device() == Device::cuda);
      });
      CHECK(rows_of(model, batch).dtype() == dtype);
      contains(error_of([&] { HalfPrecision twice(model, dtype); }), "the model computes in");
    }
    CHECK(model.hash() == before);
    CHECK(same_bits(rows_of(model, batch).value(), rows));
  }
}

TEST_CASE("what was stored in half precision stays where it lies") {
  if (!device_is_there()) return;
  SmallModel model(small_arch(Stack::encoder));
  model.each([](Weight& w) { w.parameter().value = Tensor(w.value().value().to(Dtype::bf16)); });
  const std::uint64_t before = model.hash();
  model.move_to(Device::cuda);
  const std::vector<Array> stored = arrays_of(model);
  const HalfPrecision half(model, Dtype::bf16);
  const std::vector<Array> now = arrays_of(model);
  for (std::size_t i = 0; i < now.size(); ++i) CHECK(now[i].storage() == stored[i].storage());
  CHECK(model.hash() == before);
}
