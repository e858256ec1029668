// P-tuning: virtual rows anywhere in a text, made by a small encoder.
//
// Liu et al. 2021 (2103.10385), section 3:  the model reads a template, [P_1..i], x, [P_i+1..j], y,
// ..., and  P = MLP([LSTM forward(E); LSTM backward(E)])  for trained E [n, d], so that the rows
// depend on each other.
//
//     E ── BiLSTM ── MLP ── P_1 ... P_n                    slot: Embedding::out
//                           P_1 P_2 x_1 x_2 x_3 P_3 [MASK] P_4 ...
//
// Trains: E and the encoder.   Start: not the base. Merge: no.
// encoder=lstm (default): two BiLSTM layers of `hidden`, matrix, ReLU, matrix: the paper's code for
// LAMA with hidden=d/2, where the count is n d + 14 d^2 + 18 d, and PEFT's with hidden=d. mlp:
// PEFT's, three matrices with ReLU between them. mlp2: two, the paper's code for SuperGLUE. none:
// E itself. All start as PyTorch's layers do, E from N(0, 1). PEFT's folders hold P alone.
// template= says where the rows stand, pieces joined by '+': a number is that many rows; t2 the
// next two tokens; m those before the mask token; a the first text of a pair (up to the second
// segment, or up to and with the first separator), and without a later b all that is left; b all
// that is left. 9+a: nine rows at the start. 3+m+3+t1+3+a: around a cloze task's mask, as the
// paper's (3, 3, 3). 3+a+3+b+3: before, between and after a pair's texts.
// Rows take the places and positions where they stand and what follows moves up; they have no label
// and are not pooled, but for pooled=yes, PEFT's way in SEQ_CLS on encoders. Nothing in a decoder
// reads rows after its last token, so that a template may not end with them there.
// An encoder-decoder has them in its encoder, as PEFT 0.21 does; in=decoder, in=both. One encoder
// makes both stacks' rows. The backbone stays frozen (the paper's SuperGLUE runs tune it, too).
#include "peft/ptuning.h"

#include <charconv>

#include "nn/pooling.h"
#include "peft/methods.h"

namespace graft {
namespace {

using Kind = Template::Piece::Kind;

std::optional<Template::Piece> piece_named(const std::string& word) {
  if (word == "a") return Template::Piece{Kind::first};
  if (word == "b") return Template::Piece{Kind::rest};
  if (word == "m") return Template::Piece{Kind::to_mask};
  const bool tokens = word.starts_with('t');
  int n = 0;
  const char *begin = word.data() + tokens, *end = word.data() + word.size();
  const auto [at, error] = std::from_chars(begin, end, n);
  if (error != std::errc() || at != end || n < 1) return std::nullopt;
  return Template::Piece{tokens ? Kind::tokens : Kind::rows, n};
}

}  // namespace

Template::Template(const std::string& whole, const Arch& arch)
    : text(whole), mask_(arch.mask), sep_(arch.sep) {
  for (std::size_t at = 0; at <= whole.size();) {
    const std::size_t end = std::min(whole.find('+', at), whole.size());
    const auto piece = piece_named(whole.substr(at, end - at));
    check(piece.has_value(),
          "ptuning: template={}: '{}' is no piece; need a number of rows, t2 (two tokens), m (up "
          "to the mask), a or b, joined by '+'",
          whole, whole.substr(at, end - at));
    pieces.push_back(*piece);
    at = end + 1;
  }
  const auto is_rest = [](const Piece& p) { return p.kind == Kind::rest; };
  const auto count = [&](Kind kind) {
    return std::count_if(pieces.begin(), pieces.end(),
                         [&](const Piece& p) { return p.kind == kind; });
  };
  check(count(Kind::first) <= 1 && count(Kind::rest) <= 1 && count(Kind::to_mask) <= 1,
        "ptuning: template={}: a, b and m may stand once each", whole);
  if (std::none_of(pieces.begin(), pieces.end(), is_rest))
    for (Piece& p : pieces)
      if (p.kind == Kind::first) p.kind = Kind::rest;
  const auto rest = std::find_if(pieces.begin(), pieces.end(), is_rest);
  check(rest != pieces.end() && std::all_of(rest + 1, pieces.end(),
                                            [](const Piece& p) { return p.kind == Kind::rows; }),
        "ptuning: template={}: need an a (or a and b) for the rest of the text, and after it rows "
        "alone",
        whole);
  check(rows() > 0, "ptuning: template={}: no rows in it", whole);
  check(count(Kind::to_mask) == 0 || mask_ >= 0,
        "ptuning: template={}: m in a model without a mask token", whole);
}

int Template::rows() const {
  int n = 0;
  for (const Piece& p : pieces) n += p.kind == Kind::rows ? p.count : 0;
  return n;
}

bool Template::at_start() const {
  return pieces.back().kind == Kind::rest &&
         std::all_of(pieces.begin(), pieces.end() - 1,
                     [](const Piece& p) { return p.kind == Kind::rows; });
}

int Template::to_the_mask(const Sequence& s, int from, int end, const Ctx& ctx) const {
  for (int row = from; row < end; ++row)
    if (s.source[row] >= 0 && ctx.batch->token[s.source[row]] == mask_) return row;
  fail("ptuning: template={}: m, but a text has no mask token left; need head=cloze", text);
}

// The row after the first text, counted from `from`.
int Template::first_text(const Sequence& s, int from, int end, const Ctx& ctx) const {
  const Batch& batch = *ctx.batch;
  for (int row = from; row < end; ++row) {
    const std::int32_t token = s.source[row];
    if (token < 0) continue;
    if (!batch.token_type.empty()) {
      if (batch.token_type[token] == 1) return row;
    } else if (batch.token[token] == sep_ && row + 1 < end) {
      return row + 1;
    }
  }
  fail("ptuning: template={}: a and b, but a text has no second one after a separator ({})", text,
       sep_);
}

std::vector<Gap> Template::gaps(const Sequence& s, std::size_t i, int start, const Ctx& ctx) const {
  const int end = start + s.length[i];
  // A filler is no text of the template's form.
  if (i + static_cast<std::size_t>(ctx.batch->filler) >= s.length.size()) return {{0, rows()}};
  std::vector<Gap> all;
  int row = start;
  for (const Piece& p : pieces) {
    if (p.kind == Kind::rows) {
      all.push_back({row - start, p.count});
    } else if (p.kind == Kind::tokens) {
      for (int left = p.count; left > 0; ++row) {
        check(row < end, "ptuning: template={}: t{}, but a text has only {} tokens", text, p.count,
              s.length[i]);
        left -= s.source[row] >= 0;
      }
    } else {
      row = p.kind == Kind::to_mask ? to_the_mask(s, row, end, ctx)
            : p.kind == Kind::first ? first_text(s, row, end, ctx)
                                    : end;
    }
  }
  return all;
}

PtuningOptions::PtuningOptions(Options& o, const Arch& arch)
    : stacks(stacks_of(o, arch)),
      place(o.text("template", "9+a"), arch),
      encoder(o.choice("encoder", "lstm", {"lstm", "mlp", "mlp2", "none"})),
      hidden(o.integer("hidden", encoder == "lstm" ? std::max(arch.width / 2, 1) : arch.width)),
      pooled(o.flag("pooled", false)) {
  check(encoder != "none" || !o.has("hidden"), "ptuning: hidden= with encoder=none");
  const bool decoder = arch.causal && std::ranges::count(stacks, arch.stack) > 0;
  check(!decoder || place.pieces.back().kind != Kind::rows,
        "ptuning: template={}: rows after a decoder's last token, which nothing there reads",
        place.text);
  const bool pair = std::ranges::any_of(
      place.pieces, [](const Template::Piece& p) { return p.kind == Kind::first; });
  check(!pair || arch.token_types > 1 || arch.sep >= 0,
        "ptuning: template={}: a and b in a model without segments or a separator", place.text);
}

namespace {

struct Ptuning : Adapter, PtuningOptions {
  Ptuning(Options& o, const Arch& arch) : Adapter("ptuning"), PtuningOptions(o, arch) {}

  void attach(Model& m) override {
    const Site site{stacks.back(), -1, Part::embed};
    for (const EncoderWeight& w : encoder_weights(*this, m.arch().width))
      weights[w.name] =
          param(m, site, "ptuning." + w.name, w.shape, w.init, {.decay = w.shape.size() > 1});
    for (std::size_t i = 0; i < stacks.size(); ++i)
      hold({stacks[i], -1, Part::embed},
           model_of(m, stacks[i])
               .embedding.out.add("ptuning", [this, i](Sequence s, const Ctx& ctx) {
                 return ctx.goes_on() ? s : placed(std::move(s), i, ctx);
               }));
  }

  Sequence placed(Sequence s, std::size_t stack, const Ctx& ctx) const {
    const std::int64_t n = place.rows(), first = static_cast<std::int64_t>(stack) * n;
    Tensor rows = encoded_rows(*this, [&](const std::string& name) { return weights.at(name); });
    if (stacks.size() > 1) rows = slice(rows, 0, first, first + n);
    std::vector<std::vector<Gap>> gaps;
    int start = 0;
    for (std::size_t i = 0; i < s.length.size(); ++i) {
      gaps.push_back(place.gaps(s, i, start, ctx));
      start += s.length[i];
    }
    return with_rows(std::move(s), rows, gaps, pooled ? kPooledRow : -1, ctx);
  }

  std::int64_t formula(const Arch& a) const override {
    const std::int64_t d = a.width, h = hidden;
    const std::int64_t prompt = std::int64_t{place.rows()} * static_cast<int>(stacks.size()) * d;
    if (encoder == "mlp") return prompt + 2 * d * h + h * h + 2 * h + d;
    if (encoder == "mlp2") return prompt + 2 * d * h + h + d;
    if (encoder == "none") return prompt;
    return prompt + 8 * h * (d + h + 2) + 8 * h * (3 * h + 2) + 2 * h * (2 * h + 1) +
           d * (2 * h + 1);
  }

  std::map<std::string, Tensor> weights;
};

}  // namespace

std::unique_ptr<Adapter> make_ptuning(Options& o, const Arch& a) {
  return std::make_unique<Ptuning>(o, a);
}

}  // namespace graft
