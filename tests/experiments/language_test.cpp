// Language tasks: what is encoded, what the loss is of, training and floors.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "experiments/data/baselines.h"
#include "experiments/data/metrics.h"
#include "experiments/runs/features.h"
#include "experiments/runs/unigram.h"
#include "tests/experiments/small_language.h"
#include "tests/nn/tokenizer_fixtures.h"

using namespace graft;
using namespace graft::testing;

namespace {

EncodedTask encoded(const EncodeSpec& spec = {}) {
  return encode_task(stories(), tokenizer(), arch_of(Stack::decoder), spec);
}

RunSpec lora(int epochs = 3) {
  return {
      .method = "lora:r=2,on=q+v,dropout=0.1", .lr = 0.02, .epochs = epochs, .batch = 5, .seed = 3};
}

// -log softmax(scores)[label], in f64.
double surprise(const std::vector<double>& scores, std::int32_t label) {
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double s : scores) sum += std::exp(s - top);
  return top + std::log(sum) - scores[static_cast<std::size_t>(label)];
}

}  // namespace

TEST_CASE("a language example is prompt [SEP] continuation [SEP], told from the prompt's end on") {
  const TaskData data = stories();
  const EncodedTask task = encoded();
  CHECK(task.goal == Goal::language);
  CHECK(task.metric == "loss");
  const auto a = tokenizer().encode(data.train[2].a), b = tokenizer().encode(data.train[2].b);
  std::vector<std::int32_t> by_hand(a.begin(), a.end());
  by_hand.push_back(3);
  by_hand.insert(by_hand.end(), b.begin(), b.end());
  by_hand.push_back(3);
  CHECK(task.train[2].token == by_hand);
  CHECK(task.train[2].prompt == static_cast<int>(a.size()) + 1);
  const Batch batch = make_batch(task, task.train, {2}, 0, 1);
  for (std::size_t i = 0; i < by_hand.size(); ++i)  // the last [SEP] is told, the first is not
    CHECK(batch.token_label[i] == (i >= a.size() && i + 1 < by_hand.size() ? by_hand[i + 1] : -1));
}

TEST_CASE("a decoder's texts begin as its tokenizer begins them: LLaMA's with <s>") {
  const Tokenizer llama = Tokenizer::load(kinds::fixture("llama"));
  Arch arch = arch_of(Stack::decoder);
  arch.vocab = llama.size(), arch.cls = arch.sep = -1;
  CHECK(text_beginning(arch, llama) == std::vector<std::int32_t>{llama.bos()});
  CHECK(text_beginning(arch, tokenizer()).empty());
  CHECK(text_beginning(arch_of(Stack::encoder), llama).empty());
  CHECK(prompt_tokens(arch, llama, "a wolf") == llama.encode_marked("a wolf").ids);
  const EncodedTask task = encode_task(stories(), llama, arch, {});
  const auto first = stories().train[0];
  std::vector<int> by_hand = llama.encode_marked(first.a).ids;
  CHECK(by_hand.front() == llama.bos());
  by_hand.push_back(llama.sep());
  CHECK(task.train[0].prompt == static_cast<int>(by_hand.size()));
  CHECK(std::equal(by_hand.begin(), by_hand.end(), task.train[0].token.begin()));
  const EncodedTask cut = encode_task(stories(), llama, arch, {.max_tokens = 9});
  for (const EncodedExample& e : cut.train) CHECK(e.token.size() <= 9);
}

TEST_CASE("a continuation that was cut has no end to be told") {
  const EncodedTask task = encoded({.max_tokens = 8});
  CHECK(task.shortened > 0);
  int cut = 0;
  const TaskData data = stories();
  for (std::size_t i = 0; i < task.train.size(); ++i) {
    const std::size_t whole =
        tokenizer().encode(data.train[i].a).size() + tokenizer().encode(data.train[i].b).size() + 2;
    CHECK(task.train[i].token.size() <= 8);
    CHECK((task.train[i].token.back() == 3) == (whole <= 8));
    cut += whole > 8;
  }
  CHECK(cut == [&] {
    int n = 0;
    for (const EncodedExample& e : task.train) n += e.token.back() != 3;
    return n;
  }());
}

TEST_CASE(
    "a language task's loss is what a softmax by hand gives, in whatever company it is read") {
  SmallModel model(arch_of(Stack::decoder));
  const EncodedTask task = encoded();
  const Score score = evaluate(model, task, task.test);
  REQUIRE(score.rows.size() == 7);
  double sum = 0;
  for (std::size_t i = 0; i < task.test.size(); ++i) {
    const EncodedExample& e = task.test[i];
    NoRecord off;
    Ctx ctx;
    const Batch batch = make_batch(task, task.test, {static_cast<std::int32_t>(i)}, 0, 1);
    const Sequence s = model.forward(batch, ctx);
    std::vector<std::int32_t> rows;
    for (std::size_t t = static_cast<std::size_t>(e.prompt) - 1; t + 1 < e.token.size(); ++t)
      rows.push_back(static_cast<std::int32_t>(t));
    const std::vector<double> logits = model.lm_logits(s, rows, ctx).value().to_vector();
    const std::size_t vocab = logits.size() / rows.size();
    double loss = 0;
    for (std::size_t k = 0; k < rows.size(); ++k) {
      const auto at = logits.begin() + static_cast<std::ptrdiff_t>(k * vocab);
      loss += surprise({at, at + static_cast<std::ptrdiff_t>(vocab)},
                       e.token[static_cast<std::size_t>(rows[k]) + 1]);
    }
    loss /= static_cast<double>(rows.size());
    sum += loss;
    CHECK(score.rows[i] == doctest::Approx(loss).epsilon(1e-5));
    CHECK(score.rows[i] == static_cast<float>(model.lm_loss(s, batch, ctx).item()));  // alone: same
  }
  CHECK(score.metric == doctest::Approx(-sum / 7).epsilon(1e-5));  // a score: higher is better
  CHECK(turned("loss", score.metric) > 0);
  CHECK(turned("accuracy", 0.5) == 0.5);
}

TEST_CASE("LoRA lowers the loss below the untrained base's; vocabulary head and base stay") {
  SmallModel base(arch_of(Stack::decoder));
  const std::uint64_t before = base.hash();
  const EncodedTask task = encoded();
  const double untrained = evaluate(base, task, task.test).metric;
  const RunResult r = finetune(base, task, lora(6), all_methods());
  CHECK(base.hash() == before);
  CHECK(r.head == 0);
  CHECK(r.trainable == 2 * 2 * 2 * 12 * 2);  // blocks x (q, v) x (A, B) x width x rank
  CHECK(r.test > untrained + 0.05);
  CHECK(r.train_loss.back() < r.train_loss.front());
  CHECK(r.dev_best == *std::max_element(r.dev.begin(), r.dev.end()));
  double mean = 0;
  for (const float row : r.test_rows) mean += row / 7;
  CHECK(-r.test == doctest::Approx(mean).epsilon(1e-5));
}

TEST_CASE("a language run stopped at any step and resumed has the bits of the whole run") {
  const Threads one(1);
  const EncodedTask task = encoded();
  const auto run = [&](const RunPlaces& places) {
    SmallModel base(arch_of(Stack::decoder));
    return finetune(base, task, lora(2), all_methods(), {}, places);
  };
  const RunResult whole = run({});
  for (int stop = 1; stop <= 10; stop += 3) {
    const Folder folder;
    int steps = 0;
    const RunPlaces places{folder / "state", 0, [&](int, int, double) {
                             if (++steps == stop) throw 0;
                           }};
    CHECK_THROWS(run(places));
    const RunResult resumed = run(places);
    CHECK(resumed.weights_hash == whole.weights_hash);
    CHECK(resumed.dev == whole.dev);
    CHECK(resumed.test_rows == whole.test_rows);
  }
}

TEST_CASE("the unigram floor is what counting by hand gives") {
  EncodedTask task;
  task.name = "counted", task.goal = Goal::language, task.metric = "loss";
  task.train.resize(2), task.test.resize(1);
  task.train[0].token = {9, 3, 5, 5, 3}, task.train[0].prompt = 2;  // 5 5 3
  task.train[1].token = {9, 3, 6, 3}, task.train[1].prompt = 2;     // 6 3
  task.test[0].token = {9, 3, 5, 7, 3}, task.test[0].prompt = 2;    // 5 7 3
  // Five tokens of three kinds, ten in the vocabulary: (count + 0.3) / 8.
  const double loss = -(std::log(2.3 / 8) + std::log(0.3 / 8) + std::log(2.3 / 8)) / 3;
  const Score score = unigram_score(task, task.test, 10);
  CHECK(score.rows.at(0) == doctest::Approx(loss));
  CHECK(score.metric == doctest::Approx(-loss));
}

TEST_CASE("what does not go with a language task is refused in words that say why") {
  const EncodedTask task = encoded();
  const Arch encoder = arch_of(Stack::encoder);
  contains(error_of([&] { encode_task(stories(), tokenizer(), encoder, {}); }),
           "task stories: a language task is told token by token and needs a causal model");
  contains(error_of([&] { encoded({.cloze = true}); }), "no labels for head=cloze");
  contains(error_of([&] { encoded({.max_tokens = 2}); }), "2 tokens leave no room");
  SmallModel base(arch_of(Stack::decoder));
  const auto train = [&](RunSpec spec) {
    return error_of([&] { finetune(base, task, spec, all_methods()); });
  };
  RunSpec spec = lora();
  spec.method = "head";
  contains(train(spec), "method head leaves nothing to train on task stories");
  spec = lora(), spec.head = "dense";
  contains(train(spec), "a language task has no head of its own, so head=dense");
  contains(error_of([] { majority_baseline(stories()); }), "is a language task and has no labels");
  contains(error_of([] { linear_baseline(stories()); }), "is a language task and has no labels");
  Options options = parse_spec("features:layer=1").at(0);
  contains(error_of([&] { feature_transfer(base, task, options, 1); }), "no labels to learn");
  const EncodedTask classes = encode_task(data(), tokenizer(), arch_of(Stack::decoder), {});
  contains(error_of([&] { unigram_score(classes, classes.test, 300); }), "task beasts has labels");
}
