// The families' own heads for whole texts: numbers, files, labels, and what is refused.
#include <doctest/doctest.h>

#include <set>
#include <string>
#include <vector>

#include "nn/models/config.h"
#include "nn/models/heads.h"
#include "nn/models/presets.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

const char* const kHeads[] = {"bert-head",  "roberta-head",     "roberta-prelayernorm-head",
                              "esm-head",   "gpt2-head",        "opt-head",
                              "llama-head", "mistral-head",     "qwen2-head",
                              "qwen3-head", "xlm-roberta-head", "distilbert-head"};
const std::vector<std::string> kNames{"noun.food", "noun.animal", "verb \"to go\""};

Batch texts_of(const std::string& family) {
  const SafetensorsReader file(fixture(family) / "outputs.safetensors");
  Batch batch = batch_of(file);
  if (file.tensors().contains("types")) batch.token_type = read_ints(file, "types");
  return batch;
}

Array scores_of(const Model& model, const Batch& batch, Ctx ctx = {}) {
  const Sequence s = model.forward(batch, ctx);
  return model.head().scores(model, s, batch, ctx).value();
}

Array expected(const std::string& family) {
  const SafetensorsReader file(fixture(family) / "outputs.safetensors");
  Array logits = Array::empty(file.at("logits").shape);
  file.read_f32("logits", logits);
  return logits;
}

LinearHead& head_of(Model& model) { return dynamic_cast<LinearHead&>(model.head()); }

}  // namespace

TEST_CASE("a checkpoint's head gives transformers' logits") {
  for (const std::string family : kHeads) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    REQUIRE(model->has_head());
    CHECK(!model->arch().lm);
    CHECK(difference(scores_of(*model, texts_of(family)), expected(family)) <= 1e-5);
  }
}

TEST_CASE("BERT's segments are asked for by the batch, and count") {
  const auto model = load_model(fixture("bert-head"));
  Batch batch = texts_of("bert-head");
  const Array with = scores_of(*model, batch);
  batch.token_type.assign(batch.token.size(), 0);
  const Array zero = scores_of(*model, batch);
  CHECK(difference(zero, with) > 1e-3);
  batch.token_type.clear();
  CHECK(same_bits(scores_of(*model, batch), zero));
  batch.token_type = {1};
  contains(error_of([&] { scores_of(*model, batch); }), "1 token types for 14 tokens");
  batch.token_type.assign(batch.token.size(), 2);
  contains(error_of([&] { scores_of(*model, batch); }), "token type 2; the model has 2");
}

TEST_CASE("a folder with a head is saved with the bytes and labels that it was loaded with") {
  for (const std::string family : kHeads) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    const Folder folder;
    save_model(*model, folder.path);
    const SafetensorsReader before(fixture(family) / "model.safetensors"),
        after(folder / "model.safetensors");
    CHECK(before.tensors().size() == after.tensors().size());
    for (const auto& tensor : before.tensors()) {
      const std::string& name = tensor.first;
      CAPTURE(name);
      CHECK(after.at(name).shape == tensor.second.shape);
      CHECK(std::ranges::equal(before.bytes(name), after.bytes(name)));
    }
    const auto again = load_model(folder.path);
    CHECK(again->arch() == model->arch());
    CHECK(again->head().labels == model->head().labels);
    CHECK(head_of(*again).classes() == head_of(*model).classes());
  }
  CHECK(load_model(fixture("bert-head"))->head().labels == kNames);
  CHECK(load_model(fixture("opt-head"))->head().labels ==
        std::vector<std::string>{"LABEL_0", "LABEL_1"});
  CHECK(head_of(*load_model(fixture("roberta-head"))).classes() == 0);
}

TEST_CASE("a language model with a family's head is saved as transformers' class for texts") {
  for (const std::string family : {"bert", "roberta", "esm", "gpt2", "opt", "llama", "mistral",
                                   "qwen2", "xlm-roberta", "distilbert"}) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    StartedHead made = start_family_head({.seed = 3}, *model, {"no", "yes"});
    contains(made.from, "a new one as");
    contains(made.from, "ForSequenceClassification has it, for no, yes");
    model->set_head(std::move(made.head));
    const Folder folder;
    save_model(*model, folder.path);
    const auto config = ordered_json::parse(read_file(folder / "config.json"));
    CHECK(std::string(config["architectures"][0]).ends_with("ForSequenceClassification"));
    CHECK(config["id2label"] == ordered_json{{"0", "no"}, {"1", "yes"}});
    CHECK(config["label2id"]["yes"] == 1);
    CHECK(config["problem_type"] == "single_label_classification");
    const SafetensorsReader file(folder / "model.safetensors");
    for (const auto& [name, info] : file.tensors()) {
      CHECK(!name.starts_with("lm_head"));
      CHECK(!name.starts_with("cls."));
      CHECK(!name.starts_with("vocab_"));
    }
    const auto again = load_model(folder.path);
    const Batch batch = texts_of(family + "-head");
    CHECK(same_bits(scores_of(*again, batch), scores_of(*model, batch)));
  }
}

TEST_CASE("another head than the family's is not saved; a cloze head is no part of a folder") {
  const auto model = load_model(fixture("bert"));
  const Folder folder;
  for (const HeadForm form : {HeadForm{}, HeadForm{.pool = Pool::cls}, HeadForm{.dense = true},
                              HeadForm{.pool = Pool::last}}) {
    model->set_head(std::make_unique<LinearHead>(Build{}, model->arch(), 2, form));
    contains(error_of([&] { save_model(*model, folder.path); }),
             "no class for this head on family bert");
  }
  CHECK(folder.entries() == 0);
  model->set_head(std::make_unique<LinearHead>(Build{}, model->arch(), 2, Pool::cls, true));
  save_model(*model, folder.path);
  CHECK(load_model(folder.path)->head().labels == std::vector<std::string>{"LABEL_0", "LABEL_1"});
  model->set_head(std::make_unique<ClozeHead>(std::vector<std::vector<std::int32_t>>{{7}, {8}}));
  save_model(*model, folder.path);
  CHECK(load_model(folder.path)->hash() == model->hash());
  model->set_head(start_family_head({}, *model, {"a", "a"}).head);
  contains(error_of([&] { save_model(*model, folder.path); }), "two classes are called 'a'");
}

TEST_CASE("a task goes on from a checkpoint's head where the labels are the same, in its order") {
  for (const std::string family : {"bert-head", "gpt2-head"}) {
    const auto model = load_model(fixture(family));
    const Batch batch = texts_of(family);
    const Array before = scores_of(*model, batch);
    const std::vector<std::string> order{kNames[2], kNames[0], kNames[1]};
    CHECK(tells(model->head(), order));
    StartedHead made = start_family_head({.seed = 3}, *model, order);
    contains(made.from, "the checkpoint's own, for verb");
    contains(made.from, "there in another order");
    const auto its_own = model->set_head(std::move(made.head));
    const Array after = scores_of(*model, batch);
    for (int i = 0; i < 3; ++i)
      for (int k = 0; k < 3; ++k) CHECK(after.at(i * 3 + k) == before.at(i * 3 + (k + 2) % 3));
    CHECK(its_own->labels == kNames);
    for (const std::vector<std::string>& other :
         {std::vector<std::string>{"noun.food", "noun.animal"}, {"a", "b", "c"}, {}}) {
      CHECK(!tells(*its_own, other));
    }
  }
  const auto value = load_model(fixture("roberta-head"));
  CHECK(tells(value->head(), {}));
  contains(start_family_head({}, *value, {}).from, "the checkpoint's own, for one value");
  const StartedHead fresh = start_family_head({.seed = 1}, *value, {"x", "y"});
  contains(fresh.from, "for x, y; the checkpoint's is for one value");
}

TEST_CASE("BERT's new head begins with the matrix for pooling that a body was saved with") {
  Copy body("bert");
  body.rename(
      [](const std::string& name) {
        return name.starts_with("cls.") ? std::vector<std::string>{}
                                        : std::vector<std::string>{name.substr(5)};
      },
      [](SafetensorsWriter& writer) {
        writer.add("pooler.dense.weight", Array::full({16, 16}, 0.5));
        writer.add("pooler.dense.bias", Array::full({16}, 0.25));
      });
  body.set("architectures", {"BertModel"});
  const auto model = load_model(body.path);
  const StartedHead made = start_family_head({}, *model, {"no", "yes"});
  contains(made.from, "its first matrix is the checkpoint's for pooling");
  CHECK(made.head->dense->w.value().value().at(7) == 0.5);
  CHECK(made.head->dense->b.value().value().at(7) == 0.25);
}

TEST_CASE(
    "beside a vocabulary head that matrix is kept for the head, and is no part of the model") {
  const auto add = [](Copy& copy, std::int64_t width) {
    copy.rename([](const std::string& name) { return std::vector{name}; },
                [&](SafetensorsWriter& writer) {
                  writer.add("bert.pooler.dense.weight", Array::full({width, 16}, 0.5));
                  writer.add("bert.pooler.dense.bias", Array::full({width}, 0.25));
                });
  };
  Copy bert("bert");
  add(bert, 16);
  const auto model = load_model(bert.path), bare = load_model(fixture("bert"));
  CHECK(model->hash() == bare->hash());
  CHECK(model->parameters() == bare->parameters());
  const StartedHead made = start_family_head({}, *model, {"no", "yes"});
  CHECK(made.head->dense->b.value().value().at(7) == 0.25);
  CHECK(start_family_head({}, *bare, {"no", "yes"}).from.find("pooling") == std::string::npos);
  const Folder again;
  save_model(*model, again.path);
  CHECK(!SafetensorsReader(again / "model.safetensors")
             .tensors()
             .contains("bert.pooler.dense.weight"));
  Copy wrong("bert");
  add(wrong, 8);
  contains(wrong.error(), "bert.pooler.dense.weight: is F32 [8, 16]; need a floating type and");
}

TEST_CASE("what config.json says of labels must agree, and be what is followed") {
  const struct {
    const char* key;
    ordered_json value;
    const char* why;
  } cases[] = {{"num_labels", 4, "num_labels is 4, id2label has 3 names"},
               {"num_labels", 0, "num_labels is 0; need 1"},
               {"id2label", ordered_json{{"0", "a"}, {"2", "b"}}, "no name for id 1"},
               {"id2label", ordered_json::array({"a"}), "need an object of names by id"},
               {"id2label", ordered_json{{"0", "a"}, {"1", "a"}}, "one name twice: a, a"},
               {"label2id", ordered_json{{"noun.food", 1}}, "'noun.food' id 0, label2id does not"},
               {"problem_type", "multi_label_classification", "multi_label_classification with 3"},
               {"problem_type", "regression", "problem_type is regression with 3 labels"},
               {"architectures", ordered_json::array({"GPT2ForSequenceClassification"}),
                "family bert has BertForSequenceClassification"}};
  for (const auto& c : cases) {
    CAPTURE(c.why);
    Copy copy("bert-head");
    copy.set(c.key, c.value);
    contains(copy.error(), c.why);
    contains(copy.error(), (copy / "config.json").string());
  }
  Copy few("bert-head");
  few.set("id2label", ordered_json{{"0", "a"}, {"1", "b"}});
  few.erase("label2id");
  contains(few.error(), "classifier.weight is [3, 16]; need [2, 16]");
  Copy t5("t5");
  t5.set("architectures", {"T5ForSequenceClassification"});
  contains(t5.error(), "of family t5 this version reads no head for whole texts");
  contains(error_of([] { head_form(load_arch(fixture("t5"))); }), "family t5 has no head");
}

TEST_CASE("a head for more labels than an object is usually large opens as it was saved") {
  const auto model = load_model(fixture("bert"));
  std::vector<std::string> labels;
  for (int i = 0; i < 12000; ++i) labels.push_back(std::to_string(i * 7919 % 12000) + " of them");
  model->set_head(start_family_head({.seed = 3}, *model, labels).head);
  const Folder folder;
  save_model(*model, folder.path);
  CHECK(load_model(folder.path)->head().labels == labels);
}

TEST_CASE("a head drops values as its family does, by example, and only in training") {
  const struct {
    const char* family;
    double dropout, dropout_in;
  } cases[] = {{"bert-head", 0.3, 0},  // its is classifier_dropout
               {"roberta-prelayernorm-head", 0.1, 0.1},
               {"esm-head", 0.1, 0.1},
               {"distilbert-head", 0.2, 0}};
  for (const auto& c : cases) {
    const std::string family = c.family;
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    const HeadForm form = head_of(*model).form();
    CHECK(form.dropout == c.dropout);
    CHECK(form.dropout_in == c.dropout_in);
    const Batch batch = texts_of(family);
    Ctx plain;
    const Sequence s = model->forward(batch, plain);
    Ctx train{.train = true, .key = {3, 4}, .address = s.address()};
    const auto scores = [&](const Batch& b) {
      return model->head().scores(*model, s, b, train).value();
    };
    const Array once = scores(batch);
    CHECK(same_bits(once, scores(batch)));
    Batch other = batch;
    other.example[1] += 7;
    const Array twice = scores(other);
    CHECK(same_bits(once.slice(0, 0, 1).clone(), twice.slice(0, 0, 1).clone()));
    CHECK(!same_bits(once.slice(0, 1, 2).clone(), twice.slice(0, 1, 2).clone()));
  }
  CHECK(head_form(load_arch(fixture("gpt2-head"))).dropout == 0);
}

TEST_CASE("config.json's dropout of attention is read and written, by each family's key") {
  const std::pair<const char*, const char*> keys[] = {{"bert", "attention_probs_dropout_prob"},
                                                      {"esm", "attention_probs_dropout_prob"},
                                                      {"gpt2", "attn_pdrop"},
                                                      {"opt", "attention_dropout"},
                                                      {"llama", "attention_dropout"},
                                                      {"qwen3", "attention_dropout"},
                                                      {"distilbert", "attention_dropout"}};
  for (const auto& entry : keys) {
    const auto& [family, key] = entry;
    CAPTURE(entry.first);
    Copy copy(family);
    copy.set(key, 0.35);
    const Arch arch = load_arch(copy.path);
    CHECK(arch.attention_dropout == 0.35);
    CHECK(ordered_json::parse(config_text(arch))[key] == 0.35);
  }
  Copy bert("bert");
  bert.erase("attention_probs_dropout_prob");
  CHECK(load_arch(bert.path).attention_dropout == 0.1);
  CHECK(load_arch(bert.path).head_dropout == 0.1);  // null: as hidden_dropout_prob
}

TEST_CASE("attention drops weights in training: by the family's rate, and T5 by its one") {
  for (const std::string family : {"gpt2", "llama", "t5"}) {
    CAPTURE(family);
    Copy copy(family);
    for (const char* key : {"resid_pdrop", "embd_pdrop", "attn_pdrop"})
      if (family == "gpt2") copy.set(key, key == std::string("attn_pdrop") ? 0.4 : 0.0);
    if (family == "llama") copy.set("attention_dropout", 0.4);
    const auto model = load_model(copy.path);
    const SafetensorsReader outputs(fixture(family) / "outputs.safetensors");
    const Batch batch = batch_of(outputs);
    Ctx plain, one{.train = true, .key = {1, 1}}, same{.train = true, .key = {1, 1}},
        other{.train = true, .key = {1, 2}};
    const auto rows = [&](Ctx& ctx) { return model->forward(batch, ctx).rows.value(); };
    const Array a = rows(one), b = rows(same);
    CHECK(same_bits(a, b));
    CHECK(!same_bits(a, rows(plain)));
    CHECK(!same_bits(a, rows(other)));
  }
}
