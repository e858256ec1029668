// Steps that are handed to the device whole: what a graph computes is what its commands would, and
// nothing stands in for a step that differs in more than the numbers of its arrays.
#include <cstdlib>
#include <optional>

#include "nn/half_precision.h"
#include "nn/optim/optimizer.h"
#include "peft/methods.h"
#include "tests/cuda/device_cases.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"
#ifdef GRAFT_CUDA_IS_EMULATED
#include "tests/cuda/emulation/emulation.h"
#endif

using namespace graft;
using namespace graft::testing;

namespace {

// What gathered() did since this was made.
struct Since {
  cuda::Work before = cuda::work();
  long lists() const { return cuda::work().lists - before.lists; }
  long graphs() const { return cuda::work().graphs - before.graphs; }
  long replayed() const { return cuda::work().replayed - before.replayed; }
};

struct WithoutGraphs {
  WithoutGraphs() { setenv("GRAFT_GRAPHS", "0", 1); }
  ~WithoutGraphs() { unsetenv("GRAFT_GRAPHS"); }
};

Array random_on_device(Shape shape, std::uint32_t stream) {
  return random_array(std::move(shape), stream).to(Device::cuda);
}

Batch ragged_without_targets(const Arch& arch, const std::vector<int>& length,
                             std::uint32_t first) {
  Batch b = ragged(arch, length, first);
  b.target.clear();
  return b;
}

// Batches of two sizes in turn, six times. Of a size the lengths, tokens and labels differ, and how
// many labels there are: 41 or 42, which makes 42 rows.
std::vector<Batch> batches(const Arch& arch) {
#ifdef GRAFT_SANITIZED  // where a token of a step takes a tenth of a second
  return {filled_up(ragged_without_targets(arch, {3, 2}, 0), arch),
          filled_up(ragged_without_targets(arch, {1, 4}, 3), arch)};
#endif
  std::vector<Batch> all;
  for (int i = 0; i < 6; ++i)
    for (const std::vector<int>& length :
         {i % 2 ? std::vector{20, 15, 18} : std::vector{12, 22, 19},
          {17, 20 + i % 2, 21 - i % 2, 2}}) {
      Batch b = ragged_without_targets(arch, length, std::uint32_t(3 * i));
      for (std::size_t t = 0, at = 0; t < b.token.size(); ++t) {
        const bool asked = t % 5 != 4 && int(at) < 41 + i % 2;
        b.token_label[t] = asked ? std::int32_t((t * 5 + std::size_t(i)) % 29) : -1;
        at += asked;
      }
      all.push_back(filled_up(b, arch));
    }
  return all;
}

struct Outcome {
  std::vector<double> losses, norms;
  std::vector<Array> values;
};

Outcome train(const Arch& arch, const std::string& method, std::optional<Dtype> half,
              Checkpoint checkpoint) {
  SmallModel model(arch);
  model.move_to(Device::cuda);
  const Adaptation adaptation(all_methods(), method, model);
  std::optional<HalfPrecision> narrow;
  if (half) narrow.emplace(model, *half);
  Optimizer optimizer(adaptation.parameters(), {.decay = 0.01, .clip = 0.5});
  const Schedule rate{.peak = 0.02, .steps = 20, .warmup = 3};
  Outcome out;
  std::uint32_t step = 0;
  for (const Batch& batch : batches(arch)) {
    cuda::gathered(Device::cuda, [&] {
      Ctx ctx{.train = true, .key = {7, step}, .checkpoint = checkpoint};
      const Tensor loss = model.lm_loss(batch, ctx);
      Gradients grads;
      backward(loss, grads);
      optimizer.start(grads, rate.at(int(step)));
      out.losses.push_back(loss.item());
      out.norms.push_back(optimizer.finish());
    });
    ++step;
  }
  for (const auto& p : optimizer.parameters()) out.values.push_back(p->value.value());
  return out;
}

}  // namespace

TEST_CASE("a list of work that comes again is one graph, and reads the numbers of its own time") {
  if (!device_is_there()) return;
  const Array w = random_on_device({8, 8}, 1), table = random_on_device({5, 8}, 2);
  const auto step = [&](int turn, double by) {
    Array rows = Array::empty({6, 8}, w.kind()), y = Array::empty({6, 8}, w.kind());
    std::vector<std::int32_t> index;
    for (int i = 0; i < 6; ++i) index.push_back((i * turn + 1) % 5);
    kernels::gather(rows, table, Array::of(index));
    kernels::gemm(y, rows, w, 1, 0);
    kernels::scale(y, y, by);
    return y;
  };
  const Since since;
  for (int turn = 0; turn < 5; ++turn) {
    const Array want = step(turn, 3).to(Device::cpu);
    Array got;
    cuda::gathered(Device::cuda, [&] { got = step(turn, 3); });
    CHECK(same_bits(got, want));
  }
  // The first one found no free memory that the others then used, and the next one's is a graph.
  CHECK(since.lists() == 5);
  CHECK(since.graphs() == 1);
  CHECK(since.replayed() >= 2);
  const long before = since.replayed();
  // An argument that differs makes another list.
  for (int turn = 0; turn < 3; ++turn) {
    const Array want = step(1, turn).to(Device::cpu);
    Array got;
    cuda::gathered(Device::cuda, [&] { got = step(1, turn); });
    CHECK(same_bits(got, want));
  }
  CHECK(since.graphs() == 1);
  CHECK(since.replayed() == before);
  const WithoutGraphs off;
  cuda::gathered(Device::cuda, [&] { step(0, 3); });
  CHECK(since.lists() == 8);
}

TEST_CASE("a step whose first part is handed over early has the same bits, and a graph for each") {
  if (!device_is_there()) return;
  const Array w = random_on_device({8, 8}, 6), x = random_on_device({6, 8}, 7);
  const auto step = [&](bool early) {
    Array h = Array::empty({6, 8}, w.kind()), y = Array::empty({6, 8}, w.kind());
    kernels::gemm(h, x, w, 1.5, 0);
    if (early) cuda::begin_gathered();
    kernels::gemm(y, h, w, 1, 0);
    return y;
  };
  const Array want = step(false).to(Device::cpu);
  CHECK(same_bits(step(true), want));  // outside it is nothing
  const Since since;
  const long parts = cuda::work().parts;
  for (int turn = 0; turn < 5; ++turn) {
    Array got;
    cuda::gathered(Device::cuda, [&] { got = step(true); });
    CHECK(same_bits(got, want));
  }
  CHECK(since.lists() == 5);
  CHECK(cuda::work().parts - parts == 5);
  CHECK(since.graphs() >= 2);
  CHECK(since.replayed() >= 4);
}

TEST_CASE("no graph outlives memory that was given back to the system") {
  if (!device_is_there()) return;
  const Array w = random_on_device({8, 8}, 8), x = random_on_device({6, 8}, 9);
  Array y = Array::zeros({6, 8}, w.kind());
  const auto step = [&](int turn) {
    std::vector<std::int32_t> rows{turn % 6, 1, 2, 3, 4, 5};
    Array picked = Array::empty({6, 8}, w.kind());
    kernels::gather(picked, x, Array::of(rows));
    kernels::gemm(y, picked, w, 2.5, 0);
  };
  const auto replayed = [&](int turns) {
    const Since since;
    for (int turn = 0; turn < turns; ++turn) {
      step(turn);
      const Array want = y.to(Device::cpu);
      y.fill(NAN);
      cuda::gathered(Device::cuda, [&] { step(turn); });
      CHECK(same_bits(y, want));
    }
    return since.replayed();
  };
  CHECK(replayed(5) >= 2);
  pool::trim();
  CHECK(replayed(1) == 0);  // even if the system gives the same addresses again
  CHECK(replayed(5) >= 2);
}

TEST_CASE("what does not change is copied to the device once: projections, and frequencies") {
  if (!device_is_there()) return;
  const auto copies = [](auto&& step) {
    const long before = cuda::work().copies;
    cuda::gathered(Device::cuda, step);
    return cuda::work().copies - before;
  };
  Fastfood p = draw_fastfood(20, 100, 1, {3, 0}, 4);
  const Array x = random_array({20}, 5), dy = random_array({100}, 6);
  Array y = Array::empty({100}), dx = Array::zeros({20});
  const auto there = [&](Array& y, Array& dx) {
    kernels::fastfood(y, x.to(y.device()), p);
    kernels::fastfood_adjoint(dx, dy.to(y.device()), p);
  };
  Array y2 = y.to(Device::cuda), dx2 = dx.to(Device::cuda);
  const auto check_both = [&](long most) {
    dx.fill(0), dx2.fill(0);
    there(y, dx);
    CHECK(copies([&] { there(y2, dx2); }) == most);
    CHECK(apart(y2, y) < 1e-5);
    CHECK(apart(dx2, dx) < 1e-5);
  };
  check_both(2 + 4);  // x, dy; signs, places, their inverse, the diagonal
  check_both(2);
  std::swap(p.place.data<std::int32_t>()[3], p.place.data<std::int32_t>()[50]);
  check_both(2 + 2);  // written to: the places, and their inverse
  p.gaussian = p.gaussian.clone();
  check_both(2 + 1);
  check_both(2);

  const Array rows = random_on_device({7, 24}, 7), turns = random_array({4}, 8);
  const Array position = Array::of(std::vector<std::int32_t>{4, 0, 1, 2, 9, 5, 3});
  CHECK(copies([&] {
          Array z = Array::empty({7, 24}, rows.kind());
          for (int layer = 0; layer < 3; ++layer)
            kernels::rotate(z, rows, position, turns, 3, layer % 2);
        }) == 2);
}

#ifdef GRAFT_CUDA_IS_EMULATED
TEST_CASE("where no graph can be made a list is started all the same, and why is told") {
  const Array x = random_on_device({8, 8}, 4);
  const Since since;
  emulation::no_room_for_graphs = true;
  for (int turn = 0; turn < 6; ++turn) {
    if (turn == 4) emulation::no_room_for_graphs = false;  // it is not tried again
    Array y = Array::zeros({8, 8}, x.kind());
    cuda::gathered(Device::cuda, [&] { kernels::axpy(y, x, 7); });
    CHECK(y.at(9) == doctest::Approx(7 * x.at(9)));
  }
  CHECK(since.lists() == 6);
  CHECK(since.graphs() == 0);
  CHECK(since.replayed() == 0);
  contains(cuda::work().in_vain, "making a graph of ");
  contains(cuda::work().in_vain, "out of memory");
}

TEST_CASE(
    "work that cannot be started while memory is asked for is an error, not a wait for ever") {
  const Array table = random_on_device({8, 8}, 5);
  const Array row = Array::zeros({8000}, Dtype::i32), rows = Array::zeros({1 << 18}, Dtype::i32);
  Array y = Array::empty({8000, 8}, table.kind()), all = Array::empty({1 << 18, 8}, table.kind());
  (void)Array::empty({5}, table.kind());  // something that the pool keeps free
  const auto gather = [&] { kernels::gather(y, table, row); };  // copies the indices
  contains(error_of([&] {
             cuda::gathered(Device::cuda, [&] {
               gather();
               kernels::gather(all, table, rows);  // more than any list before has copied
               emulation::no_memory = true;
               (void)Array::empty({1 << 25}, table.kind());
             });
           }),
           " bytes of the host");
  emulation::no_memory = false;
  cuda::gathered(Device::cuda, gather);  // the copy that was never made is not taken for one
  CHECK(y.at(8 * 7999 + 3) == table.at(3));
}
#endif

TEST_CASE("numbers that a step asks for on the host are there, and an error leaves what was done") {
  if (!device_is_there()) return;
  const Array x = random_on_device({4, 4}, 3);
  for (int turn = 0; turn < 4; ++turn) {
    Array y = Array::zeros({4, 4}, x.kind());
    cuda::gathered(Device::cuda, [&] {
      kernels::axpy(y, x, 2);
      CHECK(y.at(5) == doctest::Approx(2 * x.at(5)));
      cuda::gathered(Device::cuda, [&] { kernels::axpy(y, x, 1); });  // within: no end of its own
      kernels::axpy(y, x, 1);
    });
    CHECK(y.at(5) == doctest::Approx(4 * x.at(5)));
  }
  Array y = Array::zeros({4, 4}, x.kind());
  contains(error_of([&] {
             cuda::gathered(Device::cuda, [&] {
               kernels::axpy(y, x, 5);
               fail("stopped here");
             });
           }),
           "stopped here");
  CHECK(y.at(3) == doctest::Approx(5 * x.at(3)));
  bool called = false;
  cuda::gathered(Device::cpu, [&] { called = true; });
  CHECK(called);
  setenv("GRAFT_GRAPHS", "yes", 1);
  contains(error_of([] { cuda::gathered(Device::cuda, [] {}); }),
           "GRAFT_GRAPHS: 'yes'; need 0 or 1");
  unsetenv("GRAFT_GRAPHS");
}

TEST_CASE("steps as graphs have the bits of steps call by call: ragged batches, draws, clipping") {
  if (!device_is_there()) return;
  struct Case {
    std::string name;
    Arch arch;
    std::string method;
    std::optional<Dtype> half = {};
    Checkpoint checkpoint = Checkpoint::none;
  };
  const Arch encoder = small_arch(Stack::encoder), decoder = small_arch(Stack::decoder);
  for (const Case& c : {Case{"LoRA with dropout", encoder, "lora:r=2,on=q+v,dropout=0.2"},
                        {"full", decoder, "full"},
                        {"rotary positions, bf16", llama_like(), "houlsby:m=3", Dtype::bf16},
                        {"made again", decoder, "prefix:length=1", {}, Checkpoint::blocks}}) {
#ifdef GRAFT_SANITIZED
    if (c.method == "full" || c.half) continue;
#endif
    CAPTURE(c.name);
    Outcome want;
    {
      const WithoutGraphs off;
      want = train(c.arch, c.method, c.half, c.checkpoint);
    }
    const Since since;
    const Outcome got = train(c.arch, c.method, c.half, c.checkpoint);
    CHECK(got.losses == want.losses);
    CHECK(got.norms == want.norms);
    REQUIRE(got.values.size() == want.values.size());
    for (std::size_t i = 0; i < got.values.size(); ++i)
      CHECK(same_bits(got.values[i], want.values[i]));
#ifndef GRAFT_SANITIZED
    // One list for each of the 12 steps: nothing was asked for in between. Until as much memory is
    // free as a step takes they differ by their addresses, and where the last block leaves out
    // other numbers of rows by their shapes.
    CHECK(since.lists() == 12);
    CHECK(since.graphs() >= 2);
    CHECK(since.replayed() >= 3);
#endif
  }
}

TEST_CASE("work that is not finite moves nothing, and is told when the step's numbers are read") {
  if (!device_is_there()) return;
  SmallModel model(small_arch(Stack::decoder));
  model.move_to(Device::cuda);
  const Adaptation adaptation(all_methods(), "lora:r=2,on=q", model);
  Optimizer optimizer(adaptation.parameters(), {});
  const Array before = optimizer.parameters()[0]->value.value().clone();
  Gradients grads;
  const Tensor loss = model.lm_loss(ragged(model.arch(), {4}), *std::make_unique<Ctx>());
  backward(loss, grads);
  grads[optimizer.parameters()[1]->value].fill(NAN);
  cuda::gathered(Device::cuda, [&] {
    optimizer.start(grads, 0.1);
    contains(error_of([&] { optimizer.finish(); }), "is not finite at step 1; lower the rate");
  });
  CHECK(same_bits(optimizer.parameters()[0]->value.value(), before));
  CHECK(optimizer.steps() == 0);
}
