// Merging: what it changes and costs, and what it refuses without changing anything.
#include "peft/merge_report.h"

#include <cmath>

#include "tests/nn/model_fixtures.h"
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("merging reports the largest difference of the outputs, and unmerging costs nothing") {
  const auto model = load_model(fixture("llama"));
  const std::uint64_t hash = model->hash();
  Adaptation adaptation(all_methods(), "lora:r=2,on=q+v+down", *model);
  jitter(adaptation.parameters());
  const Batch batch = ragged(model->arch(), {5, 1, 8});
  const auto outputs = [&] { return logits_of(*model, batch).value(); };
  const std::vector<double> before = outputs().to_vector();
  const MergeReport r = merge_reported(adaptation, *model, outputs);
  const std::vector<double> after = outputs().to_vector();
  double largest = 0, size = 0;
  for (std::size_t i = 0; i < before.size(); ++i) {
    largest = std::max(largest, std::abs(before[i] - after[i]));
    size = std::max(size, std::abs(before[i]));
  }
  CHECK(r.outputs == static_cast<std::int64_t>(before.size()));
  CHECK(r.largest == largest);
  CHECK(r.size == size);
  CHECK(r.largest > 0);
  CHECK(r.largest < 1e-5 * size);
  const double place = std::ldexp(1.0, std::ilogb(static_cast<float>(size)) - 23);
  CHECK(r.ulps == doctest::Approx(largest / place));
  CHECK(r.tensors == 6);
  CHECK(r.added_bytes == 2 * 4 * (16 * 16 + 8 * 16 + 16 * 24));
  CHECK(r.kept_bytes == 0);  // mapped from its file
  contains(to_string(r), "unmerging needs no memory");
  contains(error_of([&] { adaptation.merge(); }), "lora: it is merged already");
  contains(error_of([&] { merge_reported(adaptation, *model, outputs); }), "merged already");
  adaptation.unmerge();
  CHECK(same_bits(outputs(), Array::of(before, outputs().shape()).to(Dtype::f32)));
  CHECK(model->hash() == hash);
  contains(error_of([&] { adaptation.unmerge(); }), "lora: it is not merged");
}

TEST_CASE("of a model that lies in memory alone, unmerging keeps the base's tensors") {
  SmallModel model(small_arch(Stack::encoder));
  Adaptation adaptation(all_methods(), "ia3:on=k", model);
  jitter(adaptation.parameters());
  const Batch batch = ragged(model.arch(), {5, 3});
  const MergeReport r =
      merge_reported(adaptation, model, [&] { return rows_of(model, batch).value(); });
  CHECK(r.tensors == 4);  // two matrices and their biases
  CHECK(r.kept_bytes == 2 * 4 * (24 * 24 + 24));
  CHECK(r.added_bytes == r.kept_bytes);
  contains(to_string(r), fmt::format("unmerging needs {} bytes", r.kept_bytes));
}

TEST_CASE("with copies kept, unmerging needs the base's file no more, and says what they take") {
  for (const char* base : {"llama", "gpt2"}) {
    const auto model = load_model(fixture(base));
    const std::uint64_t hash = model->hash();
    const Batch batch = ragged(model->arch(), {5, 1, 8});
    const auto outputs = [&] { return logits_of(*model, batch).value(); };
    Adaptation adaptation(all_methods(), "lora:r=2,on=q+up", *model);
    jitter(adaptation.parameters());
    const Array before = outputs();
    const MergeReport r = merge_reported(adaptation, *model, outputs, Unmerge::from_copy);
    CHECK(r.tensors == 4);
    CHECK(r.kept_bytes == r.added_bytes);  // f32 both
    contains(to_string(r), fmt::format("unmerging needs {} bytes", r.kept_bytes));
    adaptation.unmerge();
    CHECK(same_bits(outputs(), before));
    CHECK(model->hash() == hash);
    for (const Linear* l : model->linears({{Part::q, Part::up}})) {
      const bool mapped = l->w.value().value().storage()->keepalive != nullptr;
      CHECK_FALSE(mapped);
    }
  }
}

TEST_CASE("a merge that would be NaN or infinite is refused, and the model is as it was") {
  const Arch arch = small_arch(Stack::encoder);
  const Batch batch = ragged(arch, {5, 3});
  for (const char* spec : {"lora:r=2,on=q+down", "ia3", "lora:r=1|ia3:on=k", "full", "bitfit"})
    for (const float bad : {NAN, INFINITY}) {
      CAPTURE(spec);
      SmallModel model(arch);
      const std::uint64_t hash = model.hash();
      {
        Adaptation adaptation(all_methods(), spec, model);
        jitter(adaptation.parameters());
        const Array before = rows_of(model, batch).value();
        Array& last = adaptation.parameters().back()->value.value();
        const float good = last.data<float>()[3];
        last.data<float>()[3] = bad;
        const std::string said = error_of([&] { adaptation.merge(); });
        contains(said, "merge: 'encoder ");
        contains(said, std::isnan(bad) ? "would be NaN at " : "would be ");
        CHECK_FALSE(adaptation.merged());
        last.data<float>()[3] = good;
        CHECK(same_bits(rows_of(model, batch).value(), before));
        adaptation.merge();  // nothing of the first one is left
        CHECK(difference(rows_of(model, batch).value(), before) < 1e-5);
        adaptation.unmerge();
      }
      CHECK(model.hash() == hash);
    }
}

TEST_CASE("every method says from shapes alone whether it merges, and merging keeps to it") {
  const Threads one(1);
  for (const Method& method : all_methods())
    for (const Body body : kBodies) {
      CAPTURE(method.name);
      Model shapes(contract_arch(body), {.storage = false});
      const Adaptation unbuilt(all_methods(), method.example, shapes);
      const std::string says = merges_in_words(unbuilt);
      SmallModel model(contract_arch(body));
      Adaptation adaptation(all_methods(), method.example, model);
      const std::string done = error_of([&] { adaptation.merge(); });
      if (says.starts_with("yes")) {
        CHECK(says == "yes: " + method.name);
        CHECK(method.mergeable);
        CHECK(done == "(no error)");
      } else {
        CHECK_FALSE(method.mergeable);
        contains(says, "no; " + method.name + ": it ");
        contains(done, "it cannot be merged: it ");
        contains(says, done.substr(done.find("merged: ") + 8));
      }
    }
  const auto says = [](const std::string& spec, const Arch& arch) {
    Model shapes(arch, {.storage = false});
    return merges_in_words(Adaptation(all_methods(), spec, shapes));
  };
  const Arch arch = small_arch(Stack::decoder);
  CHECK(says("prompt:length=2", arch).find("rows of its own") != std::string::npos);
  CHECK(says("prefix:length=2", arch).find("is no change of a weight") != std::string::npos);
  CHECK(says("llama_adapter:length=2", arch).find("keys and values of its own") !=
        std::string::npos);
  CHECK(says("houlsby:m=2", arch).find("no low-rank change of a matrix") != std::string::npos);
  CHECK(says("lora:r=1,on=embed", arch) ==
        "no; lora: its matrix of embeddings is the vocabulary's, too, which is not adapted");
  CHECK(says("ia3|lora:r=1,on=down", arch) ==
        "no; lora merges; ia3 does not under lora, which reads what it scales at decoder 0 down; "
        "write lora first");
  CHECK(says("lora:r=1|prompt:length=1|houlsby:m=2", arch).find("; houlsby: ") !=
        std::string::npos);
  CHECK(says("qknorm", arch) ==
        "no; qknorm: it divides queries and keys by their lengths, which no matrix does");
  CHECK(says("houlsby:m=2,norms=no,layers=0|houlsby:m=3,norms=no,layers=1", arch) ==
        says("houlsby:m=2", arch));
  CHECK(says("lora:r=1,on=q|ia3:on=k|lora:r=1,on=v", arch) == "yes: lora, ia3");
  CHECK(says("lora:r=8|prefix:length=2", arch) ==
        "no; lora merges; prefix: it gives attention keys and values of its own, which is "
        "no change of a weight");
  CHECK(says("lora:r=1,on=q|lora:r=1,on=embed", arch) ==
        "no; lora (part 1) merges; lora (part 2): its matrix of embeddings is the "
        "vocabulary's, too, which is not adapted");
}
