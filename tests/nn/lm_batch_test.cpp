// Texts as batches for language modelling.
#include "nn/lm_batch.h"

#include <doctest/doctest.h>

#include "nn/files/atomic.h"
#include "tests/experiments/small_task.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("in a batch of texts every token tells the next, and the first text follows the last") {
  const std::vector<std::vector<std::int32_t>> texts{{5, 6, 7}, {8, 9}};
  const Batch b = lm_batch(texts, 1, 3);
  CHECK(b.token == std::vector<std::int32_t>{8, 9, 5, 6, 7, 8, 9});
  CHECK(b.token_label == std::vector<std::int32_t>{9, -1, 6, 7, -1, 9, -1});
  CHECK(b.length == std::vector<int>{2, 3, 2});
  CHECK(b.example == std::vector<std::uint32_t>{1, 0, 1});
  contains(error_of([&] { lm_batch({}, 0, 1); }), "1 of 0 texts");
  contains(error_of([&] { lm_batch(texts, 0, 0); }), "0 of 2 texts");
  contains(error_of([&] { lm_batch({{5, 6}, {7}}, 0, 2); }), "text 1 has 1 tokens");
}

TEST_CASE("texts are a file's lines with the end token behind them; long ones lose their end") {
  const Folder folder;
  Arch arch = arch_of(Stack::decoder);
  arch.positions = 6;
  const auto read = [&](const std::string& text) {
    write_file_atomically(folder / "text", text);
    return read_texts(folder / "text", tokenizer(), arch);
  };
  const auto texts = read("the wolf\r\n\nthe otter and the hare and the raven by the river\nagain");
  REQUIRE(texts.size() == 3);
  std::vector<int> first = tokenizer().encode("the wolf");
  REQUIRE(first.size() < 6);
  first.push_back(3);
  CHECK(texts[0] == first);
  CHECK(texts[1].size() == 6);
  CHECK(texts[1].back() != 3);
  CHECK(texts[2].back() == 3);
  contains(error_of([&] { read("\n\n"); }), "has none; one stands on each line");
  contains(error_of([&] { read("a\n\xff"); }), "text:2: ");
  contains(error_of([&] { read_texts(folder / "no", tokenizer(), arch); }), "cannot read");
  arch.sep = -1;
  contains(error_of([&] { read("a"); }), "the model has no end token");
}
