// A task's rows as the tokens that a model reads.
#include "experiments/runs/finetune.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("examples are [CLS] a [SEP] b [SEP] for encoders, a [SEP] b [SEP] for decoders") {
  const TaskData t = data();
  const auto encoded = [&](Stack stack, EncodeSpec spec = {}) {
    return encode_task(t, tokenizer(), arch_of(stack), spec);
  };
  const auto ids = [&](const std::string& text) { return tokenizer().encode(text); };
  const auto joined = [&](std::vector<int> head, const std::vector<int>& a, std::vector<int> tail) {
    head.insert(head.end(), a.begin(), a.end());
    head.insert(head.end(), tail.begin(), tail.end());
    return std::vector<std::int32_t>(head.begin(), head.end());
  };
  const EncodedTask encoder = encoded(Stack::encoder), decoder = encoded(Stack::decoder);
  CHECK(encoder.train.size() == 13);
  CHECK(encoder.train[1].token == joined({2}, ids(t.train[1].a), {3}));
  CHECK(decoder.train[1].token == joined({}, ids(t.train[1].a), {3}));
  CHECK(decoder.train[0].token ==
        joined(joined({}, ids(t.train[0].a), {3}), ids(t.train[0].b), {3}));
  CHECK(encoder.train[1].label == 1);
  CHECK(encoder.label_words[1] == joined({}, ids(" animal"), {}));
  EncodeSpec spec{.train_rows = 5, .cloze = true};
  const EncodedTask cloze = encoded(Stack::encoder, spec);
  CHECK(cloze.train.size() == 5);
  CHECK(cloze.train[1].token == joined({2}, ids(t.train[1].a), {4, 3}));
  spec = {.max_tokens = 9};
  const EncodedTask cut = encoded(Stack::encoder, spec);
  CHECK(cut.shortened > 0);
  for (const EncodedExample& e : cut.train) {
    CHECK(e.token.size() <= 9);
    CHECK(e.token.back() == 3);
  }
  spec.max_tokens = 2;
  contains(error_of([&] { encoded(Stack::encoder, spec); }), "2 tokens leave no room");
  Arch wrong = arch_of(Stack::encoder);
  wrong.vocab = 40;
  contains(error_of([&] { encode_task(t, tokenizer(), wrong, {}); }), "the model only 40");
}
