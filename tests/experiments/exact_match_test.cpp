// Answers written exactly: counted against what the model writes by itself.
#include "experiments/runs/exact_match.h"

#include <doctest/doctest.h>

#include "nn/generate.h"
#include "tests/experiments/small_language.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("an answer is right if the model writes it token for token and then ends") {
  Arch arch = arch_of(Stack::decoder);
  EncodedTask task = encode_task(stories(), tokenizer(), arch, {});
  for (EncodedExample& e : task.train) e.token.resize(static_cast<std::size_t>(e.prompt));
  {  // The second token that the model writes ends a text: so some texts end.
    SmallModel model(arch);
    arch.sep =
        generate(model, {task.train[0].token}, {.max_tokens = 2, .stop = {}}).at(0).tokens.back();
  }
  SmallModel model(arch);
  int ended = 0;
  for (EncodedExample& e : task.train) {
    const Generated g = generate(model, {e.token}, {.max_tokens = 12, .stop = {arch.sep}}).at(0);
    e.token.insert(e.token.end(), g.tokens.begin(), g.tokens.end());
    ended += g.end == Generated::End::stop;
  }
  REQUIRE(ended > 0);
  ExactMatch m = exact_match(model, task, task.train);
  CHECK(m.right == ended);
  CHECK(m.of == static_cast<int>(task.train.size()));
  CHECK(m.share() == doctest::Approx(double(ended) / m.of));
  EncodedExample& first = task.train[0];
  first.token.insert(first.token.end() - 1, (arch.sep + 1) % arch.vocab);  // one token more
  m = exact_match(model, task, task.train);
  CHECK(m.right == ended - 1);
}

TEST_CASE("only a task that is answered by texts has exact matches") {
  SmallModel model(arch_of(Stack::decoder));
  const EncodedTask classes = encode_task(data(), tokenizer(), model.arch(), {});
  contains(error_of([&] { exact_match(model, classes, classes.test); }), "task beasts has labels");
}
