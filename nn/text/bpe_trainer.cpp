#include "nn/text/bpe_trainer.h"

#include <cstdint>
#include <deque>
#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "nn/files/atomic.h"
#include "nn/text/byte_level.h"
#include "nn/text/unicode.h"
#include "tensor/error.h"

namespace graft {
namespace {

constexpr std::int64_t kLeastCount = 2;

using WordCounts = std::unordered_map<std::string, std::int64_t>;
using Pair = std::pair<int, int>;

struct PairHash {
  std::size_t operator()(const Pair& pair) const {
    const auto key = std::uint64_t(std::uint32_t(pair.first)) << 32 | std::uint32_t(pair.second);
    return std::size_t((key * 0x9E3779B97F4A7C15u) >> 16);
  }
};

// The vocabulary before any merge: special tokens, then bytes.
BpeModel start_model(const BpeTraining& options) {
  BpeModel model;
  model.add_prefix_space = options.add_prefix_space;
  std::unordered_set<std::string> spelled;
  for (int b = 0; b < 256; ++b) spelled.insert(spell(std::string(1, char(b))));
  for (const std::string& content : options.specials) {
    check(!content.empty() && find_invalid_utf8(content) == std::string::npos,
          "bpe trainer: special token {} is empty or not UTF-8", model.specials.size());
    check(spelled.insert(content).second,
          "bpe trainer: special token '{}' is there twice or spells a byte", content);
    SpecialToken token;
    token.content = content;
    token.id = int(model.tokens.size());
    model.specials.push_back(std::move(token));
    model.tokens.push_back(content);
  }
  for (int b = 0; b < 256; ++b) model.tokens.emplace_back(1, char(b));
  check(options.vocab_size >= int(model.tokens.size()),
        "bpe trainer: vocab_size is {}; {} special tokens and 256 bytes need {}",
        options.vocab_size, options.specials.size(), model.tokens.size());
  return model;
}

void count_words(std::string_view text, std::string_view where, const BpeModel& model,
                 WordCounts& counts) {
  const std::size_t bad = find_invalid_utf8(text);
  check(bad == std::string_view::npos, "bpe trainer: {} is not UTF-8 at byte {}", where, bad);
  std::unordered_map<std::string_view, std::int64_t> seen;
  std::deque<std::string> padded;  // `seen` points into these too
  for (const Piece& piece : SpecialSplitter(model.specials).split(text)) {
    if (piece.id >= 0) continue;
    std::string_view plain = piece.text;
    if (model.add_prefix_space && !plain.starts_with(' '))
      plain = padded.emplace_back(" " + std::string(plain));
    for (std::size_t begin = 0; begin < plain.size();) {
      const std::size_t end = word_end(plain, begin);
      ++seen[plain.substr(begin, end - begin)];
      begin = end;
    }
  }
  for (const auto& [word, count] : seen) counts[std::string(word)] += count;
}

class Trainer {
 public:
  Trainer(BpeModel model, const WordCounts& counts)
      : model_(std::move(model)), queue_(Later{&model_.tokens}) {
    for (std::size_t i = 0; i < model_.tokens.size(); ++i)
      if (i >= model_.specials.size()) ids_.emplace(model_.tokens[i], int(i));
    for (const SpecialToken& token : model_.specials) specials_.insert(token.content);
    const int first_byte = int(model_.specials.size());
    for (const auto& [text, count] : counts) {
      Word word{{}, count};
      for (const char b : text) word.tokens.push_back(first_byte + static_cast<unsigned char>(b));
      for (std::size_t i = 0; i + 1 < word.tokens.size(); ++i)
        add_pair({word.tokens[i], word.tokens[i + 1]}, count, int(words_.size()));
      words_.push_back(std::move(word));
    }
    for (const auto& [pair, entry] : pairs_) queue_.push({entry.count, pair});
  }

  BpeModel train(int vocab_size) {
    while (int(model_.tokens.size()) < vocab_size && !queue_.empty()) {
      const Ranked best = queue_.top();
      queue_.pop();
      const std::int64_t count = pairs_[best.pair].count;
      if (count < kLeastCount) continue;
      if (count == best.count)
        merge(best.pair);
      else if (count <
               best.count)  // it has lost places since; a pair that gains some is pushed again
        queue_.push({count, best.pair});
    }
    return std::move(model_);
  }

 private:
  struct Word {
    std::vector<int> tokens;
    std::int64_t count;
  };
  struct PairEntry {
    std::int64_t count = 0;
    std::vector<int> words;  // where it has been; it may have gone since
  };
  struct Ranked {
    std::int64_t count;
    Pair pair;
  };
  struct Later {
    const std::vector<std::string>* tokens;
    const std::string& bytes(int id) const { return (*tokens)[std::size_t(id)]; }
    bool operator()(const Ranked& a, const Ranked& b) const {
      if (a.count != b.count) return a.count < b.count;
      if (const int order = bytes(a.pair.first).compare(bytes(b.pair.first))) return order > 0;
      return bytes(a.pair.second) > bytes(b.pair.second);
    }
  };
  using Changes = std::unordered_map<Pair, std::int64_t, PairHash>;

  void add_pair(Pair pair, std::int64_t count, int word) {
    PairEntry& entry = pairs_[pair];
    entry.count += count;
    if (entry.words.empty() || entry.words.back() != word) entry.words.push_back(word);
  }

  void merge(Pair pair) {
    const std::string bytes =
        model_.tokens[std::size_t(pair.first)] + model_.tokens[std::size_t(pair.second)];
    // Such a token could not be told from the special one in the vocabulary.
    if (specials_.contains(spell(bytes))) return;
    const auto [known, fresh] = ids_.emplace(bytes, int(model_.tokens.size()));
    if (fresh) model_.tokens.push_back(bytes);
    model_.merges.push_back(pair);

    Changes changes;
    const std::vector<int> places = std::move(pairs_[pair].words);
    pairs_[pair].words.clear();
    for (const int word : places) merge_in_word(word, pair, known->second, changes);
    for (const auto& [changed, by] : changes) {
      PairEntry& entry = pairs_[changed];
      entry.count += by;
      if (by > 0 && entry.count >= kLeastCount) queue_.push({entry.count, changed});
    }
  }

  void merge_in_word(int index, Pair pair, int made, Changes& changes) {
    Word& word = words_[std::size_t(index)];
    std::vector<int>& tokens = word.tokens;
    const auto is_pair = [&](std::size_t i) {
      return i + 1 < tokens.size() && tokens[i] == pair.first && tokens[i + 1] == pair.second;
    };
    std::size_t first = 0;
    while (first < tokens.size() && !is_pair(first)) ++first;
    if (first == tokens.size()) return;
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i)
      changes[{tokens[i], tokens[i + 1]}] -= word.count;
    std::size_t kept = first;
    for (std::size_t i = first; i < tokens.size(); ++kept) {
      const bool joined = is_pair(i);
      tokens[kept] = joined ? made : tokens[i];
      i += joined ? 2 : 1;
    }
    tokens.resize(kept);
    for (std::size_t i = 0; i + 1 < tokens.size(); ++i) {
      const Pair now{tokens[i], tokens[i + 1]};
      changes[now] += word.count;
      if (now.first == made || now.second == made) add_pair(now, 0, index);
    }
  }

  BpeModel model_;
  std::vector<Word> words_;
  std::unordered_map<Pair, PairEntry, PairHash> pairs_;
  std::unordered_map<std::string, int> ids_;  // by bytes, without the special tokens
  std::unordered_set<std::string> specials_;
  std::priority_queue<Ranked, std::vector<Ranked>, Later> queue_;
};

Tokenizer train(BpeModel model, const WordCounts& counts, int vocab_size) {
  return Tokenizer(Trainer(std::move(model), counts).train(vocab_size));
}

}  // namespace

Tokenizer train_bpe(std::span<const std::string_view> texts, const BpeTraining& options) {
  BpeModel model = start_model(options);
  WordCounts counts;
  for (std::size_t i = 0; i < texts.size(); ++i)
    count_words(texts[i], fmt::format("text {}", i), model, counts);
  return train(std::move(model), counts, options.vocab_size);
}

Tokenizer train_bpe(const std::vector<std::filesystem::path>& files, const BpeTraining& options) {
  BpeModel model = start_model(options);
  WordCounts counts;
  for (const std::filesystem::path& file : files)
    count_words(read_file(file), file.string(), model, counts);
  return train(std::move(model), counts, options.vocab_size);
}

}  // namespace graft
