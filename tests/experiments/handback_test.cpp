// Models handed back: what `graft train --method full` and `graft merge` write, what `graft eval`
// says of it, and the folders that check_roundtrip.py opens with transformers.
#include <doctest/doctest.h>

#include <cstdlib>
#include <span>

#include "experiments/runs/finetune.h"
#include "nn/models/heads.h"
#include "peft/files.h"
#include "tests/experiments/small_bases.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

TEST_CASE("head=family has texts as transformers encodes them: marks, pairs, segments") {
  const TaskData task = data();
  for (const std::string family : {"bert", "roberta", "gpt2"}) {
    CAPTURE(family);
    Arch arch = small(family);
    arch.positions = 128;  // for the longest pair
    const EncodedTask e = encode_task(task, tokenizer(), arch, encode_for("family", {}));
    for (std::size_t i = 0; i < task.train.size(); ++i) {
      const auto& x = task.train[i];
      const Tokenizer beside = tokenizer_beside(arch, tokenizer());
      const MarkedIds marks =
          x.b.empty() ? beside.encode_marked(x.a) : beside.encode_marked(x.a, x.b);
      CHECK(e.train[i].token == marks.ids);
      CHECK(e.train[i].type == (family == "bert" ? marks.types : std::vector<int>{}));
    }
    const std::vector<std::int32_t> order{0, 1, 2};
    const Batch batch = make_batch(e, e.train, order, 0, 3);
    CHECK(batch.token_type.size() == (family == "bert" ? batch.token.size() : 0));
    CHECK((e.train[1].token.front() == 2) == !arch.causal);
    CHECK((e.train[1].token.back() == 3) == !arch.causal);
  }
  const EncodedTask cut =
      encode_task(task, tokenizer(), small("bert"), encode_for("family", {.max_tokens = 7}));
  CHECK(cut.shortened > 0);
  for (const EncodedExample& x : cut.train) {
    CHECK(x.token.size() <= 7);
    CHECK(x.token.back() == 3);
  }
  contains(error_of([&] {
             encode_task(task, tokenizer(), small("bert"), encode_for("family", {.max_tokens = 3}));
           }),
           "3 tokens leave no room");
  TaskData empty = task;
  empty.dev[0].a = empty.dev[0].b = "";
  contains(
      error_of([&] { encode_task(empty, tokenizer(), small("gpt2"), encode_for("family", {})); }),
      "a text of the task has no tokens");
}

TEST_CASE("training goes on from a model's own head and leaves it where it was") {
  const TaskData task = data();
  SmallModel model(small("bert"), Dtype::f32, 0.05);
  model.set_head(start_family_head({.seed = 9}, model, {"noun.animal", "noun.food"}).head);
  const EncodedTask e = encode_task(task, tokenizer(), model.arch(), encode_for("family", {}));
  RunSpec spec{.method = "head", .head = "family", .lr = 1e-9, .epochs = 1};
  contains(head_in_words(e, spec, model), "the checkpoint's own, for noun.food, noun.animal");
  auto its_own = model.set_head(make_head(e, spec, model));
  const Score before = evaluate(model, e, e.test);
  const Head* own = its_own.get();
  model.set_head(std::move(its_own));
  CHECK(finetune(model, e, spec, all_methods()).test_predictions == before.predictions);
  CHECK(&model.head() == own);
  spec.head = "linear";
  contains(head_in_words(e, spec, model), "the checkpoint's own is not used");
  spec.head = "family", spec.pool = "last";
  contains(error_of([&] { make_head(e, spec, model); }), "leave pool=last out");
  spec.head = "best";
  contains(error_of([&] { make_head(e, spec, model); }), "linear, dense, cloze and family");
}

TEST_CASE("graft hands whole and merged models back, scores them, and goes on from their heads") {
  for (const std::string family : {"bert", "gpt2"}) {
    CAPTURE(family);
    const Bases b({family});
    const std::string train = "train --model " + family + " --task " + b.task("beasts") + kShort;
    std::string said = b.hears(train + "--head family --method full --out " + b.out("full"));
    contains(said, "head: a new one as");
    contains(said, "model folder in");
    const std::string of_adapter = b.hears("eval " + b.out("full/adapter"));
    const std::string whole = " --task " + b.task("beasts");
    CHECK(b.hears("eval --model " + b.out("full/model") + whole) == of_adapter);
    b.hears("merge " + b.out("full/adapter") + " --out " + b.out("same"));
    CHECK(read_file(b.folder.path / "same/model.safetensors") ==
          read_file(b.folder.path / "full/model/model.safetensors"));
    CHECK(read_file(b.folder.path / "same/config.json") ==
          read_file(b.folder.path / "full/model/config.json"));

    said =
        b.hears("train --model " + b.out("full/model") + whole + kShort + "--out " + b.out("more"));
    contains(said, "head: the checkpoint's own, for noun.animal, noun.food");
    b.hears("merge " + b.out("more/adapter") + " --out " + b.out("merged") + " --dtype bf16");
    contains(b.hears("eval --model " + b.out("merged") + whole + " --split dev"), "dev accuracy");
    said = b.hears("replay " + b.out("more/run.json"));
    contains(said, "the same bits");
  }
}

TEST_CASE("a head that transformers has no class for is not handed back without a word") {
  const Bases b({"bert", "llama"});
  const std::string train = "train --task " + b.task("beasts") + kShort;
  std::string said = b.hears(train + "--model bert --method full --out " + b.out("full"));
  contains(said, "head: a new one: linear, pool=mean");
  contains(said, "no model folder will be written: transformers has no class with this head");
  CHECK(!fs::exists(b.folder.path / "full/model"));
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const Said s = b.says(arguments);
    CAPTURE(arguments);
    CHECK(s.status != 0);
    contains(s.text, why);
    CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
  };
  const std::string adapter = b.out("full/adapter");
  refused("merge " + adapter + " --out " + b.out("m"), "--head family trains the one that it has");
  CHECK(!fs::exists(b.folder.path / "m"));
  b.hears("merge " + adapter + " --without-head --out " + b.out("m"));
  CHECK(load_model(b.folder.path / "m")->arch() == small("bert"));
  refused("eval --model bert --task " + b.task("beasts"), "has no head for whole texts");
  refused("eval --model bert", "--model bert needs --task");
  refused("eval", "give an adapter's folder, or --model FOLDER");
  refused("eval " + adapter + " --model bert", "give an adapter's folder, or --model FOLDER");
  refused("merge " + adapter + " --dtype f8 --out " + b.out("m"), "f8");
  b.hears(train + "--model llama --head family --out " + b.out("l"));
  b.hears("merge " + b.out("l/adapter") + " --out " + b.out("lm"));
  TaskData other = data();
  other.labels[0] = "noun.drink";
  write_tsv_task(other, b.folder.path / "drinks");
  refused("eval --model " + b.out("lm") + " --task " + b.task("drinks"),
          "has noun.animal, noun.drink; the head of");
  said = b.hears("train --task " + b.task("drinks") + kShort + "--head family --model " +
                 b.out("lm") + " --out " + b.out("d"));
  contains(said, "for noun.animal, noun.drink; the checkpoint's is for noun.animal, noun.food");
}

TEST_CASE("a language task's models are handed back as language models") {
  const Bases b({"llama"});
  const std::string said = b.hears("train --model llama --task " + b.task("stories") + kShort +
                                   "--method full --out " + b.out("full"));
  contains(said, "model folder in");
  const std::string score = b.hears("eval " + b.out("full/adapter"));
  CHECK(b.hears("eval --model " + b.out("full/model") + " --task " + b.task("stories")) == score);
  CHECK(load_model(b.folder.path / "full/model")->arch() == small("llama"));
  // A decoder goes on after its text: no token stands at its end.
  const Tokenizer written = Tokenizer::load(b.folder.path / "full/model");
  CHECK(written.encode_marked("the wolf").ids == tokenizer().encode("the wolf"));
  CHECK(tokenizer().encode_marked("the wolf").ids.back() == 3);
}

namespace {

// Rows of logits of what an adapter's folder holds: base, head and adapter, unmerged.
struct Adapted {
  std::unique_ptr<Model> model;
  std::unique_ptr<Adaptation> adaptation;
  Adapted(const Bases& b, const std::string& base, const fs::path& adapter,
          const std::vector<std::string>& labels) {
    model = load_model(b.folder.path / base);
    if (!labels.empty()) model->set_head(start_family_head({}, *model, labels).head);
    adaptation =
        std::make_unique<Adaptation>(all_methods(), read_adapter_config(adapter).spec, *model);
    Parameters all = adaptation->parameters();
    const Parameters head = train_head(*model);
    all.insert(all.end(), head.begin(), head.end());
    load_adapter_values(adapter, all);
  }
};

void write_ints(SafetensorsWriter& to, const char* name, const std::vector<std::int32_t>& values) {
  to.add(name, FileDtype::i32, {static_cast<std::int64_t>(values.size())},
         std::as_bytes(std::span(values)));
}

// What check_roundtrip.py compares: texts, their ids as we make them, and the logits.
void write_outputs(const Adapted& of, const fs::path& folder) {
  std::vector<std::vector<std::string>> texts{
      {"the wolf by the river"}, {"the soup again"}, {"bread"}};
  if (of.model->has_head()) texts.push_back({"the otter and the hare", "the honey again"});
  const Tokenizer beside = tokenizer_beside(of.model->arch(), tokenizer());
  Batch batch;
  std::vector<std::int32_t> rows;
  for (const auto& text : texts) {
    const MarkedIds ids =
        text.size() == 1 ? beside.encode_marked(text[0]) : beside.encode_marked(text[0], text[1]);
    batch.example.push_back(static_cast<std::uint32_t>(batch.length.size()));
    batch.length.push_back(static_cast<int>(ids.ids.size()));
    for (std::size_t i = 0; i < ids.ids.size(); ++i) {
      rows.push_back(static_cast<std::int32_t>(batch.token.size()));
      batch.token.push_back(ids.ids[i]);
      if (of.model->arch().token_types > 1) batch.token_type.push_back(ids.types[i]);
    }
  }
  Ctx ctx;
  const Sequence s = of.model->forward(batch, ctx);
  const Array logits = of.model->has_head()
                           ? of.model->head().scores(*of.model, s, batch, ctx).value()
                           : of.model->lm_logits(s, rows, ctx).value();
  SafetensorsWriter writer;
  write_ints(writer, "tokens", batch.token);
  write_ints(writer, "lengths", batch.length);
  if (!batch.token_type.empty()) write_ints(writer, "types", batch.token_type);
  writer.add("logits", FileDtype::f32, logits.shape(),
             std::span(logits.data<float>(), static_cast<std::size_t>(logits.numel())));
  writer.write(folder / "outputs.safetensors");
  write_file_atomically(folder / "texts.json", json(texts).dump());
}

}  // namespace

TEST_CASE("folders for check_roundtrip.py: trained whole, and merged" * doctest::skip()) {
  const char* out = std::getenv("GRAFT_ROUNDTRIP");
  if (!out) {
    MESSAGE("SKIPPED: GRAFT_ROUNDTRIP names no folder to write to");
    return;
  }
  std::vector<std::string> families(std::begin(kEncoders), std::end(kEncoders));
  families.insert(families.end(), std::begin(kDecoders), std::end(kDecoders));
  const Bases b(families);
  for (const std::string& family : families)
    for (const std::string task : {"beasts", "stories"}) {
      const bool language = task == "stories";
      if (language && std::ranges::find(kDecoders, family) == std::end(kDecoders)) continue;
      const std::string train = "train --model " + family + " --task " + b.task(task) +
                                (language ? "" : " --head family") + kShort;
      const std::vector<std::string> labels = language ? std::vector<std::string>{} : data().labels;
      const std::string kind = language ? "-language" : "-texts";
      for (const std::string method : {"full", "lora:r=2,on=q+v+o+up"}) {
        const std::string name = (method == "full" ? "full-" : "merged-") + family + kind;
        b.hears(train + "--method " + method + " --out " + b.out(name));
        const fs::path to = fs::path(out) / name;
        b.hears("merge " + b.out(name + "/adapter") + " --out '" + to.string() + "'");
        if (method == "full")
          for (const char* file : {"model.safetensors", "config.json"})
            CHECK(read_file(to / file) == read_file(b.folder.path / name / "model" / file));
        write_outputs(Adapted(b, family, b.folder.path / name / "adapter", labels), to);
      }
    }
}
