// Tasks in text-to-text form: what the encoder reads and what the decoder is to write.
#include "experiments/runs/text_form.h"

#include <doctest/doctest.h>

#include <fstream>
#include <numeric>

#include "experiments/data/task_folders.h"
#include "experiments/runs/encoded.h"
#include "experiments/runs/named_task.h"
#include "tests/experiments/small_language.h"
#include "tests/nn/tokenizer_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::vector<std::int32_t> ids(const Tokenizer& t, const std::string& text, int end) {
  const std::vector<int> plain = t.encode(text);
  std::vector<std::int32_t> all(plain.begin(), plain.end());
  all.push_back(end);
  return all;
}

TaskData pairs(TaskData::Kind kind = TaskData::Kind::classification) {
  TaskData t = data(kind);
  t.pair = true;
  for (auto* split : {&t.train, &t.dev, &t.test})
    for (Example& e : *split) e.b = sentence(e.id + 1);
  return t;
}

EncodedTask encoded(const TaskData& t, const EncodeSpec& spec = {}) {
  return encode_task(t, tokenizer(), text_arch(), spec);
}

}  // namespace

TEST_CASE("the encoder reads the task's name and its named fields, the decoder writes the label") {
  const TaskData t = pairs();
  const EncodedTask task = encoded(t);
  CHECK(task.text());
  CHECK(task.start == 0);
  for (const std::size_t i : {0, 1, 7}) {
    const Example& e = t.train[i];
    CHECK(task.train[i].source == ids(tokenizer(), "beasts first: " + e.a + " second: " + e.b, 3));
    CHECK(task.train[i].token == ids(tokenizer(), e.label == 1 ? " noun animal" : " noun food", 3));
  }
  CHECK(task.label_words.size() == 2);
  TaskData one = data();  // one text, with names of its own
  one.prefix = "kind of", one.fields = {"sentence"}, one.words = {"food", "beast"};
  const EncodedTask named = encoded(one);
  CHECK(named.train[1].source == ids(tokenizer(), "kind of sentence: " + one.train[1].a, 3));
  CHECK(named.train[1].token == ids(tokenizer(), " beast", 3));
}

TEST_CASE("T5's tokenizer gives the form's parts the tokens of the whole text") {
  const Tokenizer t5 = Tokenizer::load(kinds::fixture("t5"));
  Arch arch = text_arch();
  arch.vocab = t5.size(), arch.sep = t5.eos(), arch.pad = arch.start = t5.pad();
  TaskData t = pairs();
  t.name = "RTE", t.fields = {"sentence1", "sentence2"}, t.words = {"entailment", "not_entailment"};
  const EncodedTask task = encode_task(t, t5, arch, {.max_tokens = 500});
  CHECK(task.shortened == 0);
  for (std::size_t i = 0; i < t.train.size(); ++i) {
    const Example& e = t.train[i];
    const std::string text = "rte sentence1: " + e.a + " sentence2: " + e.b;
    CHECK(task.train[i].source == ids(t5, text, t5.eos()));
    const MarkedIds marked = t5.encode_marked(text);  // as transformers' tokenizer gives it
    CHECK(task.train[i].source == std::vector<std::int32_t>(marked.ids.begin(), marked.ids.end()));
    CHECK(task.train[i].token == ids(t5, t.words[static_cast<std::size_t>(e.label)], t5.eos()));
  }
}

TEST_CASE("fields stand in the order of their names, as T5's code has them") {
  TaskData t = pairs();
  t.name = "mnli", t.fields = {"premise", "hypothesis"};
  CHECK(encoded(t).train[2].source ==
        ids(tokenizer(), "mnli hypothesis: " + t.train[2].b + " premise: " + t.train[2].a, 3));
}

TEST_CASE("GLUE's folders are put to an encoder-decoder as T5 was trained on them") {
  const Folder folder;
  const auto text = [&](const std::string& header, const std::string& rows) {
    for (const char* name : {"train.tsv", "dev.tsv"})
      std::ofstream(folder / name) << header << rows;
    return load_published_folder(folder.path);
  };
  std::string rows;
  for (int i = 0; i < 40; ++i) rows += fmt::format("{}\t7\t8\tone {}\ttwo\n", i % 2, i);
  const TaskData mrpc = text("Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n", rows);
  CHECK(text_form(mrpc).parts[0].before == "mrpc sentence1:");
  CHECK(text_form(mrpc).parts[1].before == " sentence2:");
  CHECK(label_texts(mrpc) == std::vector<std::string>{"not_equivalent", "equivalent"});
  CHECK(mrpc.labels == std::vector<std::string>{"0", "1"});
  rows.clear();
  for (int i = 0; i < 40; ++i)
    rows += fmt::format("{}\tis it {}?\tyes\t{}entailment\n", i, i, i % 2 ? "not_" : "");
  const TaskData qnli = text("index\tquestion\tsentence\tlabel\n", rows);
  CHECK(text_form(qnli).parts[0].before == "qnli question:");
  CHECK(label_texts(qnli) == std::vector<std::string>{"entailment", "not_entailment"});
  std::ofstream(folder / "task.json")
      << R"({"format": "tsv", "train": "train.tsv", "a": "question", "b": "sentence",
             "labels": ["not_entailment", "entailment"], "words": ["no", "yes"],
             "prefix": "answered"})";
  const TaskData own = task_named(folder.path.string());
  CHECK(text_form(own).parts[0].before == "answered question:");
  CHECK(label_texts(own) == std::vector<std::string>{"no", "yes"});
  std::ofstream(folder / "task.json")
      << R"({"format": "tsv", "train": "train.tsv", "a": "question", "words": ["no", "yes"]})";
  contains(error_of([&] { task_named(folder.path.string()); }), "2 words for 0 labels");
}

TEST_CASE("a regression's scores are written rounded to 0.2, and read back from the best answer") {
  TaskData t = data(TaskData::Kind::regression);
  const std::vector<float> given{0.09f, 2.57f, 5, 3.1f, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  for (std::size_t i = 0; i < t.train.size(); ++i) t.train[i].score = given[i];
  t.dev[0].score = 9;  // beyond what training has seen
  const ScoreTexts scores = score_texts(t);
  CHECK(scores.texts.size() == 26);
  CHECK(scores.texts.front() == "0.0");
  CHECK(scores.texts.back() == "5.0");
  const EncodedTask task = encoded(t);
  CHECK(task.goal == Goal::regression);
  CHECK(task.values.size() == 26);
  CHECK(task.train[0].token == ids(tokenizer(), " 0.0", 3));
  CHECK(task.train[1].token == ids(tokenizer(), " 2.6", 3));
  CHECK(task.train[3].token == ids(tokenizer(), " 3.2", 3));  // 15.5 steps, in f32, and 16 is even
  CHECK(task.train[1].target == 2.57f);
  CHECK(task.dev[0].token == ids(tokenizer(), " 5.0", 3));
  t.train[2].score = -0.05f;
  CHECK(score_texts(t).texts.front() == "0.0");
  t.train[2].score = 100;
  contains(error_of([&] { encoded(t); }), "more than 200 texts");
}

TEST_CASE("a language task's prompt is read and its continuation written, each with an end token") {
  TaskData t = stories();
  t.joined = true;  // makes no difference: the two are apart already
  const EncodedTask task = encoded(t);
  CHECK(task.train[3].source == ids(tokenizer(), t.train[3].a, 3));
  CHECK(task.train[3].token == ids(tokenizer(), t.train[3].b, 3));
  CHECK(task.train[3].prompt == 0);
  t.train[3].a.clear();  // plain text: nothing to read
  CHECK(encoded(t).train[3].source == std::vector<std::int32_t>{3});
  const EncodedTask cut = encoded(t, {.max_tokens = 5});
  CHECK(cut.shortened > 0);
  for (std::size_t i = 0; i < cut.train.size(); ++i) {
    const bool whole = task.train[i].token.size() <= 5;
    CHECK(cut.train[i].token.size() <= 5);
    CHECK((cut.train[i].token.back() == 3) == whole);
    CHECK(cut.train[i].source.back() == 3);
  }
}

TEST_CASE("the decoder reads its answer one token late, beside what the encoder reads") {
  const EncodedTask task = encoded(pairs());
  const Batch b = make_batch(task, task.train, {5, 2, 0}, 1, 2);
  REQUIRE(b.source != nullptr);
  CHECK(b.sequences() == 2);
  CHECK(b.source->example == b.example);
  std::size_t at = 0, read = 0;
  for (const std::size_t i : {2, 0}) {
    const EncodedExample& e = task.train[i];
    for (std::size_t k = 0; k < e.token.size(); ++k, ++at) {
      CHECK(b.token[at] == (k == 0 ? 0 : e.token[k - 1]));
      CHECK(b.token_label[at] == e.token[k]);
    }
    for (const std::int32_t token : e.source) CHECK(b.source->token[read++] == token);
  }
  CHECK(at == b.token.size());
  CHECK(read == b.source->token.size());
}

TEST_CASE("long texts lose the end of their longer part; the form and the end token stay") {
  const TaskData t = pairs();
  const EncodedTask task = encoded(t, {.max_tokens = 40});
  CHECK(task.shortened > 0);
  const std::vector<int> name = tokenizer().encode("beasts first:");
  for (const EncodedExample& e : task.train) {
    CHECK(e.source.size() <= 40);
    CHECK(e.source.back() == 3);
    CHECK(std::equal(name.begin(), name.end(), e.source.begin()));
  }
  contains(error_of([&] { encoded(t, {.max_tokens = 20}); }), "leave no room for text beside");
}

TEST_CASE("answers that are the same are refused, and so is a head that reads a mask") {
  TaskData t = pairs();
  t.words = {"thing", "thing"};
  contains(error_of([&] { encoded(t); }), "an encoder-decoder cannot tell them apart");
  contains(error_of([&] { encoded(pairs(), {.cloze = true}); }), "head=cloze reads a mask");
  t = pairs(), t.fields = {"one"};
  contains(error_of([&] { encoded(t); }), "1 names of fields for 2 texts");
}

TEST_CASE("a joined prompt keeps its end, and its answer a quarter of the room") {
  const auto cut = [](int prompt, int answer, std::size_t most) {
    std::vector<int> a(static_cast<std::size_t>(prompt)), b(static_cast<std::size_t>(answer));
    std::iota(a.begin(), a.end(), 1), std::iota(b.begin(), b.end(), 1000);
    const bool was = fit_joined(a, b, most);
    CHECK(was == (prompt + answer > static_cast<int>(most)));
    CHECK(a.size() + b.size() <= most);
    CHECK((a.front() == 1 && a.back() == prompt));  // begins and ends as it did
    CHECK((b.empty() || b.front() == 1000));        // the answer loses its end alone
    CHECK((b.empty() || b.back() == 999 + static_cast<int>(b.size())));
    return std::pair{a.size(), b.size()};
  };
  CHECK(cut(65, 200, 125) == std::pair<std::size_t, std::size_t>{65, 60});
  CHECK(cut(100, 100, 125) == std::pair<std::size_t, std::size_t>{93, 32});
  CHECK(cut(150, 30, 125) == std::pair<std::size_t, std::size_t>{95, 30});
  CHECK(cut(100, 100, 125) != cut(100, 20, 125));
  CHECK(cut(60, 65, 125) == std::pair<std::size_t, std::size_t>{60, 65});
}
