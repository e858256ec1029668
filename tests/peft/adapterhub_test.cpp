// Folders of AdapterHub's bottleneck adapters: read as its library means them, written as it reads
// them, and refused where either could not say what the other does.
#include "peft/adapterhub.h"

#include <cstdlib>
#include <span>

#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

fs::path hub_fixture(const std::string& name) {
  return fs::path(__FILE__).parent_path() / "../fixtures/adapterhub" / name;
}

struct Row {
  const char *name, *base, *spec;
};
constexpr Row kRows[] = {
    {"pfeiffer-bert", "bert", "pfeiffer:m=4,on=mlp,f=relu,layers=1"},
    {"houlsby-roberta", "roberta",
     "houlsby:m=4,on=attn+mlp,norms=no,f=silu,norm=after,layers=0|"
     "houlsby:m=2,on=attn+mlp,norms=no,f=silu,norm=after,layers=1"},
    {"parallel-bert", "bert", "parallel:m=8,on=attn+mlp,place=residual,f=relu"},
    {"pfeiffer-gpt2", "gpt2", "pfeiffer:m=1,on=attn+mlp,f=gelu,dropout=0.1"},
    {"houlsby-gpt2", "gpt2", "houlsby:m=2,on=attn+mlp,norms=no,f=gelu_tanh"},
    {"parallel-llama", "llama", "parallel:m=4,on=mlp,place=residual,f=relu,s=learned"},
    {"houlsby-t5", "t5", "houlsby:m=3,on=attn+cross+mlp,norms=no,f=silu,s=2"},
    {"pfeiffer-t5", "t5", "pfeiffer:m=4,on=mlp,f=tanh"}};

constexpr Row kWritten[] = {
    {"houlsby", "bert", "houlsby:m=3,norms=no"},
    {"layers", "roberta", "pfeiffer:m=5,layers=0|pfeiffer:m=7,layers=1"},
    {"parallel", "bert", "parallel:m=3,s=1.5,on=attn"},
    {"residual", "gpt2", "parallel:m=3,place=residual,s=learned,norm=after,layers=1"},
    {"series", "llama", "series:m=11,bias=yes,on=attn+mlp"},
    {"cross", "t5", "houlsby:m=2,norms=no,on=cross+mlp,f=gelu_tanh,layers=0"}};

// A base with an adapter of a folder on it.
struct Opened {
  Opened(const fs::path& folder, const std::string& base) : model(load_model(fixture(base))) {
    read = read_adapterhub_folder(folder, model->arch());
    adaptation.emplace(all_methods(), read.spec, *model);
    CHECK(adaptation->parameters().size() == read.values.size());
    for (const auto& p : adaptation->parameters())
      p->value.value().copy_from(read.values.at(p->label()));
  }
  std::unique_ptr<Model> model;
  PeftAdapter read;
  std::optional<Adaptation> adaptation;
};

struct SpoiltHub : Folder {
  explicit SpoiltHub(const std::string& name) {
    for (const char* file : {"adapter_config.json", "adapter.safetensors"})
      fs::copy(hub_fixture(name) / file, path / file);
  }
  SpoiltHub& set(const std::string& key, const ordered_json& value, bool inner = true) {
    ordered_json config = ordered_json::parse(read_file(path / "adapter_config.json"));
    (inner ? config["config"] : config)[key] = value;
    write_file_atomically(path / "adapter_config.json", config.dump());
    return *this;
  }
  std::string error(const std::string& base) const {
    return error_of([&] { read_adapterhub_folder(path, load_arch(fixture(base))); });
  }
};

}  // namespace

TEST_CASE("bottleneck adapters that AdapterHub trained give its logits here") {
  for (const Row& row : kRows) {
    const std::string name = row.name;
    CAPTURE(name);
    CHECK(is_adapterhub_folder(hub_fixture(name)));
    const Opened opened(hub_fixture(name), row.base);
    CHECK(opened.read.spec == row.spec);
    const SafetensorsReader outputs(hub_fixture(name) / "outputs.safetensors");
    const Array got = logits_of(*opened.model, batch_of(outputs)).value();
    CHECK(difference(got, expected(outputs)) <= 1e-5);
  }
  CHECK_FALSE(is_adapterhub_folder(peft_fixture("bert-own")));
}

TEST_CASE("a bottleneck adapter written for AdapterHub and read again is the same function") {
  for (const Row& row : kWritten) {
    const std::string name = row.name;
    CAPTURE(name);
    const Ours ours(row.base, row.spec);
    const Folder folder;
    const PeftSource source{ours.model->arch(), row.spec, ours.parameters, "", "", false,
                            "the-base",         nullptr};
    CHECK(is_for_adapterhub(row.spec));
    CHECK(write_adapterhub_folder(folder.path, source).empty());
    const Opened again(folder.path, row.base);
    const Batch batch = some_batch(*ours.model);
    CHECK(same_bits(logits_of(*again.model, batch).value(), logits_of(*ours.model, batch).value()));
    contains(error_of([&] { write_adapterhub_folder(folder.path, source); }),
             "has an adapter already");
  }
}

TEST_CASE("in a folder without a version gelu is its tanh form, as AdapterHub reads it") {
  SpoiltHub old("pfeiffer-gpt2");
  ordered_json config = ordered_json::parse(read_file(old / "adapter_config.json"));
  config.erase("version");
  write_file_atomically(old / "adapter_config.json", config.dump());
  CHECK(read_adapterhub_folder(old.path, load_arch(fixture("gpt2"))).spec ==
        "pfeiffer:m=1,on=attn+mlp,f=gelu_tanh,dropout=0.1");
}

TEST_CASE("widths are those that AdapterHub finds for a factor") {
  CHECK(hub_width(768, 16) == 48);
  CHECK(hub_width(16, 5) == 3);
  CHECK(hub_width(16, 100) == 1);
  CHECK(hub_width(24, 0.5) == 48);
}

TEST_CASE("folders of AdapterHub's that do not fit are one error that names all of it") {
  const auto refused = [](const char* key, const ordered_json& value, const std::string& why) {
    SpoiltHub folder("pfeiffer-bert");
    CAPTURE(why);
    contains(folder.set(key, value).error("bert"), why);
  };
  refused("use_gating", true, "option use_gating = true is not followed here");
  refused("inv_adapter", "nice", "option inv_adapter");
  refused("architecture", "lora", "option architecture");
  refused("ln_before", true, "option ln_before = true");
  refused("non_linearity", "leakyrelu", "option non_linearity = leakyrelu");
  refused("scaling", "channel", "a number or learned is followed here");
  refused("scaling", "learned", "adapters.tiny.scaling [1]; the file has none");
  refused("residual_before_ln", false, "residual_before_ln = false with original_ln_before");
  refused("original_ln_after", false, "option original_ln_after = false");
  refused("reduction_factor", 8, "adapter_down.0.weight [2, 16]; the file has [4, 16]");
  refused("reduction_factor", {{"0", 4}}, "reduction_factor says nothing of layer 1");
  refused("leave_out", ordered_json::array(),
          "need bert.encoder.layer.0.output.adapters.tiny.adapter_down.0.weight [4, 16]");
  refused("leave_out", {0, 1}, "no layer has an adapter");
  refused("output_adapter", false, "none of mh_adapter, output_adapter, cross_adapter is on");
  refused("knows_more", 1, "option knows_more is not followed here");
  contains(SpoiltHub("pfeiffer-bert").error("gpt2"), "it is for family ");
  contains(SpoiltHub("pfeiffer-t5").set("leave_out", {0}).error("t5"),
           "layer 0 is adapted otherwise in the encoder than in the decoder");
  contains(SpoiltHub("pfeiffer-bert").set("name", 1, false).error("bert"), "a config and a name");
  SpoiltHub astray("pfeiffer-bert");
  {
    const SafetensorsReader reader(hub_fixture("pfeiffer-bert") / "adapter.safetensors");
    SafetensorsWriter writer;
    for (const auto& [name, info] : reader.tensors()) {
      Array value = Array::empty(info.shape);
      reader.read_f32(name, value);
      if (name.ends_with("adapter_up.weight")) value.data<float>()[5] = NAN;
      writer.add(name, value);
    }
    fs::remove(astray / "adapter.safetensors");
    writer.write(astray / "adapter.safetensors");
  }
  contains(astray.error("bert"), "adapter_up.weight [16, 4]: NaN at [1, 1]");
  const SpoiltHub pickle("pfeiffer-bert");
  fs::rename(pickle / "adapter.safetensors", pickle / "pytorch_adapter.bin");
  contains(pickle.error("bert"), "pytorch_adapter.bin is a torch pickle, which is not read");
}

TEST_CASE("bottleneck adapters that AdapterHub has no words for are not written") {
  const auto refused = [](const char* base, const char* spec, const std::string& why) {
    const Ours ours(base, spec);
    const Folder folder;
    CAPTURE(spec);
    contains(error_of([&] {
               write_adapterhub_folder(folder / "x", {ours.model->arch(), spec, ours.parameters, "",
                                                      "", false, "the-base", nullptr});
             }),
             why);
    CHECK(!fs::exists(folder / "x"));
  };
  refused("bert", "houlsby:m=2", "trains the base's norms");
  refused("bert", "series:m=2", "bias=no or norm=before");
  refused("gpt2", "parallel:m=2", "in a pre-norm model AdapterHub reads the residual stream");
  refused("llama", "series:m=2,bias=yes,on=up", "adapts single linears");
  refused("bert", "pfeiffer:m=2,layers=0|pfeiffer:m=2,f=tanh,layers=1", "differ in more than m=");
  refused("opt", "pfeiffer:m=2", "family opt is not known there");
  refused("bert", "lora:r=2", "is no bottleneck adapter");
  CHECK_FALSE(is_for_adapterhub("pfeiffer:m=2|lora:r=2"));
}

// For tests/fixtures/adapterhub/folders.py; run with --no-skip.

TEST_CASE("folders for AdapterHub" * doctest::skip()) {
  const char* out = std::getenv("GRAFT_ADAPTERHUB");
  if (!out) {
    MESSAGE("SKIPPED: GRAFT_ADAPTERHUB names no folder to write to");
    return;
  }
  for (const Row& row : kWritten) {
    const Ours ours(row.base, row.spec);
    const fs::path folder = fs::path(out) / row.name;
    write_adapterhub_folder(folder, {ours.model->arch(), row.spec, ours.parameters, "", "", false,
                                     "the-base", nullptr});
    const Batch batch = some_batch(*ours.model);
    write_outputs(folder, batch, "logits", logits_of(*ours.model, batch).value());
  }
}
