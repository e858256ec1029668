// What records say of a run's checkpoints and device, and how a sweep keeps devices apart.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "experiments/ablations/sweep.h"
#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

TEST_CASE("a record says of checkpoints what it always said, and names the inner ones beside it") {
  RunSpec s;
  CHECK(s.json().at("checkpoint_blocks") == false);
  CHECK_FALSE(s.json().contains("checkpoint"));
  s.checkpoint = "blocks";
  CHECK(s.json().at("checkpoint_blocks") == true);
  CHECK_FALSE(s.json().contains("checkpoint"));
  for (const char* checkpoint : {"none", "inner", "blocks"}) {
    s.checkpoint = checkpoint;
    CHECK(RunSpec::from(s.json()).checkpoint == checkpoint);
  }
  CHECK(RunSpec::from(json{{"checkpoint_blocks", true}}).checkpoint == "blocks");
  s.checkpoint = "all";
  contains(error_of([&] { RunSpec::from(s.json()); }), "checkpoint=all: there are none, inner");
  for (const char* other : {"none", "inner"})
    contains(error_of([&] {
               RunSpec::from(json{{"checkpoint_blocks", true}, {"checkpoint", other}});
             }),
             "give one of them");
}

TEST_CASE("a sweep is for one device and one type, and says so") {
  json spec{{"name", "r"}, {"task", "topic"}, {"method", "lora:r=1"}, {"lr", 1e-3}};
  CHECK(SweepSpec::from(spec).where == Computing{"cpu", "f32"});
  spec["device"] = "cuda", spec["compute"] = "bf16";
  CHECK(SweepSpec::from(spec).where == Computing{"cuda", "bf16"});
  const BaseFolder none = [](const std::string& name) -> std::filesystem::path { return name; };
  Lab lab(all_methods(), none);
  const Folder out;
  contains(error_of([&] { run_sweep(lab, none, spec, out.path, {}, 0); }),
           "it is for device cuda in bf16, the lab has cpu in f32");
  for (const char* other : {"device", "compute"}) {
    json before = spec;
    before["device"] = "cpu", before["compute"] = "f32";
    before[other] = spec[other];
    write_file_atomically(out.path / "sweep.json", before.dump());
    json plain = spec;
    plain.erase("device"), plain.erase("compute");
    contains(error_of([&] { run_sweep(lab, none, plain, out.path, {}, 0); }),
             "another device or type");
  }
  contains(error_of([&] {
             Lab(all_methods(), none, {"cpu", "bf16"});
           }),
           "compute bf16: the host computes in f32 alone");
  // Results of two types are never mixed, and a set-up of the host in f32 says neither.
  Setup setup;
  CHECK(!setup.json().contains("device"));
  CHECK(!setup.json().contains("compute"));
  setup.where = {"cuda", "f16"};
  CHECK(Setup::from(setup.json()).where == setup.where);
}
