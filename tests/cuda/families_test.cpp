// Every family's fixture on the device: transformers' logits, in f32 and in half precision.
#include "nn/half_precision.h"
#include "tests/cuda/device_cases.h"
#include "tests/nn/model_fixtures.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("every family's logits on the device are transformers'") {
  if (!device_is_there()) return;
  for (const std::string family : kFamilies) {
    CAPTURE(family);
#ifdef GRAFT_SANITIZED  // seconds each
    if (family != "gpt2" && family != "llama" && family != "t5") continue;
#endif
    const auto model = load_model(fixture(family));
    model->move_to(Device::cuda);
    const SafetensorsReader outputs(fixture(family) / "outputs.safetensors");
    const Batch batch = batch_of(outputs);
    std::vector<float> values(outputs.at("logits").count());
    outputs.read_f32("logits", values);
    const Array want = Array::of(values, outputs.at("logits").shape);
    const auto off = [&] {
      const Array got = logits_of(*model, batch).value();
      CHECK(got.device() == Device::cuda);
      CHECK(got.dtype() == Dtype::f32);
      return apart(got, want);
    };
    CHECK(off() < 1e-5);
    for (const Dtype dtype : {Dtype::f16, Dtype::bf16}) {
      CAPTURE(std::string(name(dtype)));
      const HalfPrecision half(*model, dtype);
      CHECK(off() < (dtype == Dtype::f16 ? 1e-2 : 4e-2));
    }
  }
}
