// Prompt tuning: rows before a text's that no token has.
//
// Lester et al. 2021 (2104.08691), section 2:  the model reads [P; X],  P [p, d] trained,
// X the rows of the text's tokens.
//
//     P_1 ... P_p  x_1 ... x_n                  slot: Embedding::out
//     └ trained ┘  └ frozen ─┘ ── + positions ── blocks
//
// Trains: P.   Count: p d for each stack that has one.
// Start: not the base. init=random draws from U(-0.5, 0.5), the paper's; its released code's range
// is [0, 0.5). normal: N(0, 1), PEFT's. vocab: the rows of tokens drawn from the first top=5000
// ids, which BPE and SentencePiece order by frequency (the paper draws from the 5000 most frequent;
// PEFT from all: give a top= as large as the vocabulary). text: the rows of tokens=, from the first
// again where they end before p (PEFT's, which has the tokenizer's special tokens among them).
// labels: those of tokens=, one row for each label, its tokens' mean, and vocab's for the rest (the
// paper's). `graft train` makes tokens= of text= and of the task's labels, so that a record says
// which.
// Positions: the prompt's rows take 0..p-1 and the text's those from p on, as in PEFT, which hands
// transformers both as one text of embeddings; T5's relative places count them alike. Prompt rows
// have no label and are not pooled; pooled=yes lets a head read them as PEFT's SEQ_CLS on an
// encoder does (there the first row is the prompt's own).
// An encoder-decoder has it in its encoder, as the paper's T5 and PEFT 0.21 do; in=decoder or
// in=both put rows of the decoder's own before what it writes.
// A step with a cache puts nothing in again. Cannot be merged: it is no change of a weight.
#include "peft/prompt.h"

#include "nn/pooling.h"
#include "peft/methods.h"

namespace graft {

PromptOptions::PromptOptions(Options& o, const Arch& arch)
    : stacks(stacks_of(o, arch)),
      length(o.integer("length", 100)),
      init(o.choice("init", "random", {"random", "normal", "vocab", "labels", "text"})),
      tokens(tokens_of(o, arch)),
      top(std::min(o.integer("top", 5000), arch.vocab)),
      pooled(o.flag("pooled", false)) {
  const bool words = init == "labels" || init == "text";
  check(words || tokens.empty(), "prompt: tokens= with init={}; need init=text or init=labels",
        init);
  check(!words || !tokens.empty(), "prompt: init={} needs tokens=, ids joined by '-'", init);
  check(static_cast<int>(tokens.size()) <= length,
        "prompt: tokens= has {} rows for a length of {}; need no more rows than that",
        tokens.size(), length);
  check(!o.has("top") || init == "vocab" || init == "labels",
        "prompt: top= with init={}; it says which ids init=vocab and init=labels draw from", init);
}

namespace {

struct Prompt : Adapter, PromptOptions {
  Prompt(Options& o, const Arch& arch) : Adapter("prompt"), PromptOptions(o, arch) {}

  void attach(Model& m) override {
    for (const Stack stack : stacks) {
      Embedding& embedding = model_of(m, stack).embedding;
      const Site site{stack, -1, Part::embed};
      const Init start = init == "random"   ? Init{Init::Kind::uniform, 0.5}
                         : init == "normal" ? Init{Init::Kind::normal, 1}
                                            : Init{Init::Kind::zeros, 0};
      const bool drawn = init == "random" || init == "normal";
      Tensor p = param(m, site, "prompt", {length, m.arch().width}, start,
                       {.start = drawn ? "" : "embeddings, init=" + init});
      if (m.build().storage && !drawn) p.value().copy_from(words(m, embedding, site));
      hold(site,
           embedding.out.add("prompt", [p, length = length, source = pooled ? kPooledRow : -1](
                                           Sequence s, const Ctx& ctx) {
             if (ctx.goes_on()) return s;
             const std::vector<std::vector<Gap>> gaps(s.length.size(), {{0, length}});
             return with_rows(std::move(s), p, gaps, source, ctx);
           }));
    }
  }

  // [length, d]: means of the embeddings of each row's tokens.
  Array words(const Model& m, const Embedding& embedding, const Site& site) const {
    const std::uint32_t stream = stream_id((to_string(site) + "/prompt/vocab").c_str());
    std::vector<std::int32_t> ids;
    std::vector<int> each;
    for (int i = 0; i < length; ++i) {
      const auto at = static_cast<std::size_t>(i);
      std::vector<std::int32_t> row;
      if (init == "text")
        row = tokens[at % tokens.size()];
      else if (init == "labels" && at < tokens.size())
        row = tokens[at];
      else
        row = {static_cast<std::int32_t>(uniform(Key{m.build().seed, 0}, stream, at) * top)};
      ids.insert(ids.end(), row.begin(), row.end());
      each.push_back(static_cast<int>(row.size()));
    }
    NoRecord off;
    const Tensor rows = gather(embedding.table(), Array::of(ids));
    return segment_mean(cast(rows, widened(rows.dtype())), each).value();
  }

  std::int64_t formula(const Arch& a) const override {
    return static_cast<std::int64_t>(stacks.size()) * length * a.width;
  }
};

}  // namespace

std::unique_ptr<Adapter> make_prompt(Options& o, const Arch& a) {
  return std::make_unique<Prompt>(o, a);
}

}  // namespace graft
