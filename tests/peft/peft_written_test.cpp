// What is written for PEFT's folders is what they are read as; heads of families and of one's own.
#include <doctest/doctest.h>

#include <cstdlib>
#include <span>

#include "nn/models/presets.h"
#include "tests/peft/peft_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Written {
  const char *name, *base, *spec, *head, *pool;
  bool language;
};
constexpr Written kWritten[] = {
    {"roberta", "roberta", "lora:r=2,alpha=5,on=q+o+down,dropout=0.1", "family", "", false},
    {"roberta-mean", "roberta", "lora:r=2,on=q", "linear", "mean", false},
    {"prelayernorm", "roberta-prelayernorm", "lora:r=2,on=q+k+v+o+up+down", "family", "", false},
    {"esm", "esm", "lora:r=1,on=v,layers=1", "family", "", false},
    {"bert-own", "bert", "lora:r=2,alpha=16,on=q+v", "linear", "mean", false},
    {"bert-parts", "bert", "lora:r=2,on=o|lora:r=3,alpha=1,on=down,layers=0", "linear", "mean",
     false},
    {"gpt2", "gpt2", "lora:r=2,alpha=6,on=q+v+o+down", "", "", true},
    {"gpt2-rs", "gpt2", "lora:r=2,alpha=3,on=q+k+v+up,scale=rs,layers=1", "", "", true},
    {"gpt2-share", "gpt2", "lora:r=2,alpha=3,on=q+k+v+up,share=qkv", "", "", true},
    {"gpt2-share-two", "gpt2", "lora:r=3,on=k+v,share=qkv|lora:r=2,on=q", "", "", true},
    {"bert-share", "bert", "lora:r=2,alpha=3,on=q+k+v,share=qkv", "linear", "mean", false},
    {"opt", "opt", "lora:r=2,on=k+up", "", "", true},
    {"llama", "llama", "lora:r=2,alpha=1.5,on=q+gate+up+down", "", "", true},
    {"llama-score", "llama", "lora:r=2,on=q+v", "family", "", false},
    {"gpt2-score", "gpt2", "lora:r=2,on=o", "family", "", false},
    {"opt-score", "opt", "lora:r=2,on=v", "family", "", false},
    {"bert-pooler", "bert", "lora:r=2,on=q+down", "family", "", false},
    {"bert-classifier", "bert-head", "lora:r=2,on=o+up", "family", "", false},
    {"t5", "t5", "lora:r=2,alpha=4,on=q+xv+up", "", "", true},
    {"prompt-roberta", "roberta", "prompt:length=3,pooled=yes", "family", "", false},
    {"prompt-gpt2-score", "gpt2", "prompt:length=2", "family", "", false},
    {"prompt-opt", "opt", "prompt:length=4", "", "", true},
    {"prompt-t5", "t5", "prompt:length=3", "", "", true},
    {"prefix-bert", "bert-head", "prefix:length=2,mlp=yes,mid=3", "family", "", false},
    {"prefix-prelayernorm", "roberta-prelayernorm", "prefix:length=3", "family", "", false},
    {"prefix-llama-score", "llama", "prefix:length=3", "family", "", false},
    {"prefix-gpt2", "gpt2", "prefix:length=3,mlp=yes,mid=3", "", "", true},
    {"ptuning-roberta", "roberta", "ptuning:template=2+a,hidden=3,pooled=yes", "family", "", false},
    {"ptuning-llama", "llama", "ptuning:template=2+a,encoder=mlp,hidden=5", "", "", true},
    {"ptuning-t5", "t5", "ptuning:template=2+a,encoder=mlp2", "", "", true},
    {"adaption-llama", "llama", "llama_adapter:length=3,gate=linear,layers=top1", "", "", true},
    {"lora-only", "gpt2", "lora:r=2,on=q+k+v+down,bias=lora_only", "", "", true},
    {"bias-all", "roberta", "lora:r=2,on=q,bias=all", "family", "", false},
    {"embed-save", "llama", "lora:r=2,alpha=3,on=q+embed,ranks=embed:3,save=lm_head+norm_out", "",
     "", true},
    {"embed-tied", "gpt2", "lora:r=2,on=up,save=norm1+down|lora:r=2,on=embed", "", "", true},
    {"patterns", "llama", "lora:r=2,alpha=4,on=q+v,ranks=v:3;q.1:1,alphas=v:5", "", "", true},
    {"saved-own", "bert", "lora:r=2,on=q,save=embed+norm1", "linear", "mean", false},
    {"ia3-bert", "bert", "ia3:on=k+v+down", "linear", "mean", false},
    {"ia3-gpt2", "gpt2", "ia3:on=k+v+down", "", "", true},
    {"ia3-llama", "llama", "ia3:on=q+up,layers=1|ia3:on=down", "family", "", false},
    {"ia3-t5", "t5", "ia3", "", "", true},
    {"norms-roberta", "roberta", "layernorm", "family", "", false},
    {"norms-gpt2", "gpt2", "layernorm:on=norm2,layers=0|layernorm:on=norm_out", "", "", true},
    {"norms-t5", "t5", "layernorm", "", "", true}};

}  // namespace

TEST_CASE("an adapter written for PEFT and read again is the same function") {
  for (const Written& row : kWritten) {
    const std::string name = row.name;
    CAPTURE(name);
    const bool kept = row.base == std::string_view("bert-head");
    const Ours ours(row.base, row.spec, row.head, row.pool, kept);
    const Folder folder;
    const auto notes = ours.write(folder.path, row.language);
    CHECK(std::ranges::count(notes,
                             "the base's matrix for pooling trained with the head: it is "
                             "saved as `pooler`") == (name == "bert-pooler"));
    Adapted again(folder.path, row.base);
    const Batch batch = some_batch(*ours.model);
    const std::string kind = *row.head ? "scores" : "logits";
    Ctx ctx;
    const Sequence s = ours.model->forward(batch, ctx);
    const Array before = *row.head ? ours.model->head().scores(*ours.model, s, batch, ctx).value()
                                   : logits_of(*ours.model, batch).value();
    CHECK(difference(again.output(kind, batch), before) <= 1e-6);
    if (std::string_view(row.base) != "gpt2" && std::string_view(row.spec).starts_with("lora")) {
      for (const auto& p : ours.parameters)
        if (!kept || p->site.part != Part::head_dense)
          CHECK(same_bits(again.read.values.at(p->label()), p->value.value()));
    }
    contains(error_of([&] { ours.write(folder.path, row.language); }), "has an adapter already");
  }
}

TEST_CASE("the family's head goes under its class; others are announced as a module of one's own") {
  const auto written = [](const char* base, const char* head, const char* pool) {
    const Ours ours(base, "lora:r=2,on=q", head, pool);
    const Folder folder;
    std::string text;
    for (const std::string& note : ours.write(folder.path)) text += note;
    const auto config = ordered_json::parse(read_file(folder / "adapter_config.json"));
    return text + " | " + config["task_type"].dump() + config["modules_to_save"].dump();
  };
  CHECK(written("roberta", "family", "mean") == R"( | "SEQ_CLS"["classifier","score"])");
  CHECK(written("llama", "family", "mean") == R"( | "SEQ_CLS"["classifier","score"])");
  contains(written("bert", "family", "mean"), R"("SEQ_CLS"["classifier","score","pooler"])");
  for (const char* own : {"linear", "dense"})
    for (const char* base : {"roberta", "llama"}) {
      const std::string all = written(base, own, "last");
      contains(all, fmt::format("has no class with this head (head={}, pool=last): it is", own));
      contains(all, R"(head=family is the one that it has | null["classifier"])");
    }
}

TEST_CASE("of a body without heads every name loses the family's prefix, in patterns, too") {
  const Arch arch = without_lm_head(load_arch(fixture("bert")));
  Model model(arch, {});
  const std::string spec = "lora:r=2,alpha=4,on=q+v,ranks=v:3;q.1:1,alphas=v:5";
  const Adaptation adaptation(all_methods(), spec, model);
  for (const auto& p : adaptation.parameters()) add_noise(*p, 0.3, 5);
  const Folder folder;
  write_peft_folder(folder.path,
                    {arch, spec, adaptation.parameters(), "", "", false, "the-base", nullptr});
  const auto config = ordered_json::parse(read_file(folder / "adapter_config.json"));
  CHECK(config["task_type"] == "FEATURE_EXTRACTION");
  CHECK(config["r"] == 3);
  const auto query = [](int layer) {
    return fmt::format("encoder.layer.{}.attention.self.query", layer);
  };
  CHECK(config["rank_pattern"] == ordered_json{{query(0), 2}, {query(1), 1}});
  REQUIRE(config["alpha_pattern"].size() == 2);
  for (const auto& pattern : config["alpha_pattern"].items())
    CHECK(pattern.key().starts_with("encoder.layer."));
  const PeftAdapter read = read_peft_folder(folder.path, arch);
  CHECK(read.values.size() == adaptation.parameters().size());
  for (const auto& p : adaptation.parameters())
    CHECK(same_bits(read.values.at(p->label()), p->value.value()));
}

// For tests/fixtures/peft/adapters.py; run with --no-skip.

TEST_CASE("folders for adapters.py" * doctest::skip()) {
  const char* out = std::getenv("GRAFT_PEFT");
  if (!out) {
    MESSAGE("SKIPPED: GRAFT_PEFT names no folder to write to");
    return;
  }
  for (const Written& row : kWritten) {
    if (std::string_view(row.name) == "roberta-mean") continue;  // as bert-own
    const Ours ours(row.base, row.spec, row.head, row.pool,
                    row.base == std::string_view("bert-head"));
    const fs::path folder = fs::path(out) / row.name;
    ours.write(folder, row.language);
    const Batch batch = some_batch(*ours.model);
    Ctx ctx;
    const Sequence s = ours.model->forward(batch, ctx);
    const bool headed = *row.head;
    const Array result = headed ? ours.model->head().scores(*ours.model, s, batch, ctx).value()
                                : logits_of(*ours.model, batch).value();
    write_outputs(folder, batch, headed ? "scores" : "logits", result);
    const bool own = headed && std::string_view(row.pool) == "mean";
    write_file_atomically(folder / "about.json", ordered_json{{"base", row.base},
                                                              {"kind", !headed ? "logits"
                                                                       : own   ? "own"
                                                                               : "scores"}}
                                                     .dump());
  }
}
