// Runs that keep the rows of frozen blocks end with the bits of runs that compute them again.
#include <doctest/doctest.h>

#include "experiments/runs/finetune.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Case {
  std::string method;
  int frozen;  // of the four blocks
  bool both = false;
};

RunResult run(const Case& c, const RunPlaces& places, int micro = 0) {
  Arch a = c.both ? text_arch() : arch_of(Stack::encoder);
  (c.both ? a.encoder_layers : a.layers) = 4;
  a.dropout = 0, a.positions = 64;
  SmallModel base(a);
  const EncodedTask task = encode_task(data(), tokenizer(), base.arch(), {});
  RunSpec spec{.method = c.method, .lr = 0.01, .epochs = 3, .batch = 4, .micro = micro, .seed = 3};
  spec = spec.on(base.arch());
  return finetune(base, task, spec, all_methods(), {}, places);
}

RunPlaces keeping(std::size_t bytes) {
  RunPlaces places;
  places.frozen_bytes = bytes;
  return places;
}

}  // namespace

TEST_CASE("a run that keeps rows of frozen blocks has the hash and scores of one that does not") {
  for (const Case& c : {Case{"head", 4}, Case{"lora:r=2,layers=top1,dropout=0.1", 3},
                        Case{"houlsby:m=3,layers=top2,norms=no", 2}, Case{"top:k=1", 3},
                        Case{"lora:r=2", 0}, Case{"prompt:length=2", 0},
                        Case{"bitfit:layers=1-3", 1}, Case{"lora:r=2,on=xq+xv", 4, true}}) {
    CAPTURE(c.method);
    const RunResult plain = run(c, keeping(0));
    CHECK(plain.frozen_blocks == 0);
    for (const std::size_t most : {std::size_t{1} << 30, std::size_t{4000}})
      for (const int micro : {0, 3}) {
        const RunResult kept = run(c, keeping(most), micro);
        CHECK(kept.frozen_blocks == c.frozen);
        CHECK(kept.frozen_bytes <= most);
        CHECK((kept.frozen_bytes > 0) == (c.frozen > 0));
        CHECK(kept.weights_hash == plain.weights_hash);
        CHECK(kept.dev == plain.dev);
        CHECK(kept.test_rows == plain.test_rows);
        if (micro == 0) CHECK(kept.train_loss == plain.train_loss);
      }
  }
}

TEST_CASE("a run that is interrupted goes on without the rows that it had kept") {
  const Case c{"lora:r=2,layers=top1", 3};
  const RunResult whole = run(c, keeping(0));
  Folder folder;
  struct Interrupted {};
  RunPlaces places = keeping(1 << 30);
  places.state = folder.path / "state.safetensors", places.state_seconds = 0;
  places.progress = [](int step, int steps, double) {
    if (step == steps / 2) throw Interrupted{};
  };
  CHECK_THROWS_AS(run(c, places), Interrupted);
  places.progress = {};
  CHECK(run(c, places).weights_hash == whole.weights_hash);
}
