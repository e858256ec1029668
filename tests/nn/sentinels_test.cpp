// Tokenizers of encoder-decoders: sentinels behind the vocabulary, and an end token behind texts.
#include "nn/text/sentinels.h"

#include <doctest/doctest.h>

#include "nn/files/atomic.h"
#include "nn/text/tokenizer.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"
#include "tests/nn/tokenizer_fixtures.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("a tokenizer with sentinels has them behind its vocabulary, the first of them last") {
  const Tokenizer& before = tokenizer();
  const Tokenizer made = before.with_sentinels(10);
  const int size = before.size();
  CHECK(made.size() == size + 10);
  CHECK(made.id("<extra_id_0>") == size + 9);
  CHECK(made.id("<extra_id_9>") == size);
  const std::string text = "the wolf <extra_id_2> by the<extra_id_0>";
  const std::vector<int> ids = made.encode(text);
  CHECK(std::count(ids.begin(), ids.end(), size + 7) == 1);
  CHECK(ids.back() == size + 9);
  CHECK(made.decode(ids) == text);
  CHECK(made.decode(ids, true).find("extra") == std::string::npos);
  CHECK(made.encode("the otter") == before.encode("the otter"));
  const Folder folder;
  made.save(folder / "tokenizer.json");
  CHECK(Tokenizer::load(folder / "tokenizer.json").encode(text) == ids);
}

TEST_CASE("texts of a tokenizer with sentinels end in the end token, and begin with nothing") {
  const Tokenizer made = tokenizer().with_sentinels(3);
  std::vector<int> a = made.encode("the wolf"), b = made.encode("honey");
  a.push_back(made.sep()), b.push_back(made.sep());
  CHECK(made.encode_marked("the wolf").ids == a);
  a.insert(a.end(), b.begin(), b.end());
  CHECK(made.encode_marked("the wolf", "honey").ids == a);
}

TEST_CASE("sentinels are refused where they cannot be added") {
  contains(error_of([] { tokenizer().with_sentinels(0); }), "0 sentinels");
  contains(error_of([] { tokenizer().with_sentinels(2).with_sentinels(2); }),
           "it has sentinels already");
  const Folder folder;
  tokenizer().save(folder / "tokenizer.json");
  const std::string json = read_file(folder / "tokenizer.json");
  contains(error_of([&] { add_sentinels("mine", json, 300, 77, 2); }),
           "mine: no special token has id 77");
  CHECK(Tokenizer::load(kinds::fixture("t5")).id(sentinel(0)) > 0);  // T5's own has them
}
