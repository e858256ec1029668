#include "nn/lm_batch.h"

#include <fstream>

#include "nn/files/lines.h"
#include "nn/models/folder.h"
#include "tensor/error.h"

namespace graft {

std::vector<std::vector<std::int32_t>> read_texts(const std::filesystem::path& file,
                                                  const Tokenizer& tokenizer, const Arch& arch) {
  check(arch.sep >= 0, "texts: the model has no end token (eos_token_id) to set behind a text");
  std::ifstream in(file);
  check(in.good(), "texts: cannot read '{}'", file.string());
  std::vector<std::vector<std::int32_t>> texts;
  Lines lines(in);
  for (std::string line; lines.next(line);) {
    if (line.empty()) continue;
    try {
      texts.push_back(prompt_tokens(arch, tokenizer, line));
    } catch (const Error& e) {
      fail("{}:{}: {}", file.string(), lines.number(), e.what());
    }
    if (arch.positions <= 0 || static_cast<int>(texts.back().size()) < arch.positions)
      texts.back().push_back(arch.sep);
    else
      texts.back().resize(static_cast<std::size_t>(arch.positions));
  }
  check(!texts.empty(), "texts: '{}' has none; one stands on each line", file.string());
  return texts;
}

Batch lm_batch(const std::vector<std::vector<std::int32_t>>& texts, std::size_t first,
               std::size_t count) {
  check(!texts.empty() && count > 0, "lm batch: {} of {} texts; need at least 1 of 1", count,
        texts.size());
  Batch b;
  for (std::size_t i = first; i < first + count; ++i) {
    const std::size_t number = i % texts.size();
    const std::vector<std::int32_t>& text = texts[number];
    check(text.size() >= 2, "lm batch: text {} has {} tokens; one must tell another", number,
          text.size());
    b.token.insert(b.token.end(), text.begin(), text.end());
    b.token_label.insert(b.token_label.end(), text.begin() + 1, text.end());
    b.token_label.push_back(-1);
    b.length.push_back(static_cast<int>(text.size()));
    b.example.push_back(static_cast<std::uint32_t>(number));
  }
  return b;
}

}  // namespace graft
