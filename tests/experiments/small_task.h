// A tiny vocabulary, corpus, model and task for tests of runs.
#pragma once

#include <string>
#include <vector>

#include "experiments/data/tasks.h"
#include "nn/models/presets.h"
#include "nn/text/bpe_trainer.h"
#include "tests/nn/small_models.h"

namespace graft::testing {

inline const std::vector<std::string> kFoods{"bread", "cheese", "soup", "apple", "rice", "honey"};
inline const std::vector<std::string> kBeasts{"wolf", "otter", "hare", "raven", "goat", "mole"};

inline std::string sentence(std::uint32_t i) {
  const auto& words = i % 2 ? kBeasts : kFoods;
  std::string text = "the " + words[i / 2 % 6];
  for (std::uint32_t k = 0; k < i % 4; ++k) text += " and the " + words[(i + k) % 6];
  return text + (i % 3 ? " by the river" : " again");
}

inline const Tokenizer& tokenizer() {
  static const Tokenizer made = [] {
    std::string text;
    for (std::uint32_t i = 0; i < 60; ++i) text += sentence(i) + "\n";
    const std::string_view texts[] = {text};
    return train_bpe(texts, {300, {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}});
  }();
  return made;
}

inline Arch arch_of(Stack stack) {
  Arch a = small_arch(stack, 12, 2, 2);
  a.hidden = 20, a.vocab = tokenizer().size(), a.positions = 32, a.dropout = 0.1;
  a.pad = 0, a.cls = 2, a.sep = 3, a.mask = 4;
  return a;
}

// An encoder-decoder of T5's kind.
inline Arch text_arch() {
  Arch a = arch_named("graft-t5");
  a.width = 12, a.heads = a.kv_heads = 2, a.head_size = 6, a.hidden = 20;
  a.layers = a.encoder_layers = 2;
  a.relative_buckets = 8, a.relative_distance = 16;
  a.vocab = tokenizer().size(), a.dropout = 0.1;
  return a;
}

inline TaskData data(TaskData::Kind kind = TaskData::Kind::classification) {
  TaskData t;
  t.name = "beasts";
  t.kind = kind;
  t.metric = kind == TaskData::Kind::classification ? "accuracy" : "pearson";
  if (kind == TaskData::Kind::classification) t.labels = {"noun.food", "noun.animal"};
  std::uint32_t id = 0;
  for (auto* split : {&t.train, &t.dev, &t.test})
    for (int i = 0; i < (split == &t.train ? 13 : 6); ++i, ++id) {
      Example e;
      e.a = sentence(id), e.id = id;
      if (kind == TaskData::Kind::classification) e.label = static_cast<int>(id % 2);
      e.score = static_cast<float>(id % 4);
      if (id % 5 == 0) e.b = sentence(id + 1);
      split->push_back(e);
    }
  return t;
}

}  // namespace graft::testing
