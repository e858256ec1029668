// Prefix tuning: keys and values of their own before a text's, in every attention.
//
// Li and Liang 2021 (2101.00190), section 4:  with trained P_k, P_v [P, d_kv] for each layer,
//     head = softmax(q [P_k; K]^T / sqrt(d_h)) [P_v; V].
//
//     P_k P_v ─┐                                slots: Attention::banks, without a gate;
//     K   V   ─┴─ softmax ── o ── y                    Embedding::out moves the text's positions
//
// Trains: P_k and P_v.   Count: 2 L P d_kv (d_kv: key heads x their width).
// mlp=yes makes them of smaller ones (section 4.3):  [P_k; P_v] = W2 tanh(W1 P' + b1) + b2 with
// P' [P, d], W1 [mid, d] and W2 of every layer [2 d_kv, mid]; the paper's code has mid 512 for
// tables (800 for summaries). Count: P d + mid (d + 1) + 2 L d_kv (mid + 1). Training goes on from
// all of it; what is written for PEFT are the keys and values alone, as the paper drops the MLP.
// With layers= this is P-tuning v2 (Liu et al. 2022, 2110.07602): prompts as deep as one likes,
// `layers=top12` or `layers=0-11`, whose code has the MLP as an option, too.
// Start: not the base. init=random draws P_k, P_v (or P') from N(0, std^2), std=1: the paper's code
// and PEFT's. init=text begins with the keys and values that the model has for tokens= (read
// alone, from the first again where they end before P), the paper's better start for few examples.
// Its MLP would have to be fitted to them first, which is not here: it needs mlp=no.
// positions=shift: the text's begin at P, since the prefix has 0..P-1. So it is in the paper's code
// and in PEFT's (both hand the prefix over as a past, and transformers counts it, in every family
// that takes one). positions=stay leaves them at 0, AdapterHub's way. Prefix keys are not rotated
// and have no relative bias.
// An encoder-decoder has a prefix in all three kinds of attention, as the paper's BART:
// on=attn+cross; in=encoder or decoder leaves one stack out.
// place=infix (section 7.2, [x; INFIX; y]) has the keys and values between what a decoder is given
// and what it writes, so that x does not see them: rows of their own before the token that the
// first label stands at, or, generating, before the prompt's last token. They take the positions
// there, and in every layer their keys and values are the trained ones, which a cache then holds.
// Merge: no.
#include "peft/prefix.h"

#include <algorithm>
#include <cmath>

#include "peft/methods.h"

namespace graft {

PrefixOptions::PrefixOptions(Options& o, const Arch& arch)
    : where(o.where(arch.crosses() ? "attn+cross" : "attn", arch)),
      stacks(stacks_of(o, arch, "both")),
      length(o.integer("length", 10)),
      mlp(o.flag("mlp", false)),
      mid(o.integer("mid", 512)),
      init(o.choice("init", "random", {"random", "text"})),
      std(o.real("std", 1)),
      tokens(tokens_of(o, arch)),
      shift(o.choice("positions", "shift", {"shift", "stay"}) == "shift"),
      infix(o.choice("place", "prefix", {"prefix", "infix"}) == "infix") {
  for (const Part part : where.parts)
    check(part == Part::attn || (part == Part::cross && arch.crosses()), "prefix: on={}; need {}",
          to_string(where.parts), arch.crosses() ? "attn, cross or attn+cross" : "attn");
  check(mlp || !o.has("mid"), "prefix: mid= without mlp=yes");
  check(std >= 0 && (init == "random" || !o.has("std")),
        "prefix: std={} with init={}; need at least 0, and init=random", std, init);
  check((init == "text") == !tokens.empty(), "prefix: init={} {} tokens=", init,
        init == "text" ? "needs" : "has no use for");
  check(init == "random" || !mlp,
        "prefix: init=text with mlp=yes: the MLP is not fitted to words here; need mlp=no");
  check(static_cast<int>(tokens.size()) <= length,
        "prefix: tokens= has {} rows for a length of {}; need no more rows than that",
        tokens.size(), length);
  for (const auto& row : tokens)
    check(row.size() == 1, "prefix: a row of tokens= has {} ids; need one, as in a text",
          row.size());
  check(!o.has("positions") || arch.learned_positions || arch.rope_theta > 0,
        "prefix: positions= in a model that has only relative ones");
  if (!infix) return;
  check(arch.causal && !arch.crosses(), "prefix: place=infix in {}; need a decoder alone",
        arch.crosses() ? "an encoder-decoder" : "an encoder");
  check(where.count(arch.layers) == arch.layers && !o.has("positions") && init == "random",
        "prefix: place=infix takes all layers, the positions where it stands, and init=random");
}

PrefixWeights prefix_weights(const PrefixOptions& o, const Site& site,
                             const std::function<Tensor(const std::string&)>& at) {
  const auto own = [&](const char* name) { return at(to_string(site) + " prefix." + name); };
  const auto shared = [&](const char* name) {
    return at(to_string(Site{site.stack, -1, site.part}) + " prefix." + name);
  };
  PrefixWeights w;
  if (!o.mlp) {
    w.k = own("k"), w.v = own("v");
    return w;
  }
  w.embed = shared("embed"), w.in = {shared("in.weight"), shared("in.bias")};
  w.k_of = {own("k.weight"), own("k.bias")}, w.v_of = {own("v.weight"), own("v.bias")};
  return w;
}

bool PrefixOptions::has(const Site& site, const Arch& arch) const {
  return where.has(site, std::max(arch.layers, arch.encoder_layers)) &&
         std::find(stacks.begin(), stacks.end(), site.stack) != stacks.end();
}

namespace {

constexpr std::int32_t kInfixRow = -3;  // Sequence::source of the infix's own rows

// Where an infix stands in each sequence.
std::vector<std::vector<Gap>> infix_gaps(const Sequence& s, int length, const Ctx& ctx) {
  std::vector<std::vector<Gap>> gaps;
  int start = 0;
  for (const int l : s.length) {
    int at = l - 1;
    if (!ctx.cache) {
      check(!ctx.batch->token_label.empty(),
            "prefix: place=infix reads a text without labels; they say where what is written "
            "begins");
      const auto labelled = [&](int row) {
        return s.source[row] >= 0 && ctx.batch->token_label[s.source[row]] >= 0;
      };
      for (at = 0; at < l && !labelled(start + at);) ++at;
    }
    gaps.push_back({{std::max(at, 0), length}});
    start += l;
  }
  return gaps;
}

// Keys or values of a text's rows with the trained ones at the infix's.
Tensor with_infix(const Tensor& of_text, const Tensor& trained, const Sequence& s) {
  std::vector<std::int32_t> from;
  const auto rows = static_cast<std::int32_t>(of_text.dim(0));
  for (const int l : s.length)
    for (int i = 0, next = 0; i < l; ++i) {
      const auto row = static_cast<std::int32_t>(from.size());
      from.push_back(s.source[row] == kInfixRow ? rows + next++ : row);
    }
  return gather(concat({of_text, trained}, 0), Array::of(from));
}

using Activations = std::map<Site, std::pair<Array, Array>>;  // keys and values by attention

struct Prefix : Adapter, PrefixOptions {
  Prefix(Options& o, const Arch& arch) : Adapter("prefix"), PrefixOptions(o, arch) {
    no_merge_ = "it gives attention keys and values of its own, which is no change of a weight";
    check(attentions(arch) > 0, "prefix: on={} in layers {}..{} is nowhere in these stacks",
          to_string(where.parts), where.first, where.last);
  }

  void attach(Model& m) override {
    for (Block* block : m.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      for (const auto& [of, attention] :
           {std::pair{Part::attn, &block->attention},
            std::pair{Part::cross, block->cross ? &*block->cross : nullptr}})
        if (attention && has({stack, layer, of}, m.arch())) add(m, {stack, layer, of}, *attention);
    }
    if (infix) return hold_rows(m);
    if (!shift || !(m.arch().learned_positions || m.arch().rope_theta > 0)) return;
    for (const Stack stack : stacks) {
      const auto move = [by = length](Sequence s, const Ctx& ctx) {
        if (!ctx.goes_on())  // the cache goes on from the last position
          for (std::int32_t& p : s.position) p += by;
        return s;
      };
      hold({stack, -1, Part::embed}, model_of(m, stack).embedding.out.add("prefix", move));
    }
  }

  void hold_rows(Model& m) {
    const auto put = [length = length](Sequence s, const Ctx& ctx) {
      if (ctx.goes_on()) return s;
      const auto gaps = infix_gaps(s, length, ctx);
      const Tensor rows(Array::zeros({length, s.rows.dim(1)}, s.rows.kind()));
      return with_rows(std::move(s), rows, gaps, kInfixRow, ctx);
    };
    hold({m.arch().stack, -1, Part::embed}, m.embedding.out.add("infix", put));
  }

  void add(const Model& m, const Site& site, Attention& attention) {
    const int kv = attention.k.out_width();
    PrefixWeights w;
    if (mlp) {
      const Init init{Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(mid))};
      const auto map = [&](const std::string& name) {
        return PrefixWeights::Map{param(m, site, name + ".weight", {kv, mid}, init),
                                  param(m, site, name + ".bias", {kv}, init, {.decay = false})};
      };
      w = shared(m, {site.stack, -1, site.part});
      w.k_of = map("prefix.k"), w.v_of = map("prefix.v");
    } else {
      const Init init{Init::Kind::normal, std};
      const Like like{.start = this->init == "text" ? "what the words' tokens have there" : ""};
      w.k = param(m, site, "prefix.k", {length, kv}, init, like);
      w.v = param(m, site, "prefix.v", {length, kv}, init, like);
      if (!words.empty()) {
        w.k.value().copy_from(words.at(attention.q.site).first);
        w.v.value().copy_from(words.at(attention.q.site).second);
      }
    }
    hold(site, attention.banks.add("prefix", [w, infix = infix](Attn a, const Ctx& ctx) {
      if (!infix) {
        a.banks.push_back({w.keys(), w.values(), {}});
      } else if (std::ranges::count(ctx.sequence->source, kInfixRow) > 0) {
        a.k = with_infix(a.k, w.keys(), *ctx.sequence);
        a.v = with_infix(a.v, w.values(), *ctx.sequence);
      }
      return a;
    }));
  }

  // P' and W1 of one kind of attention in one stack: PyTorch's standard start of such layers.
  PrefixWeights shared(const Model& m, const Site& site) {
    if (const auto at = first_layers.find(site); at != first_layers.end()) return at->second;
    const int d = m.arch().width;
    const Init init{Init::Kind::uniform, 1 / std::sqrt(static_cast<double>(d))};
    PrefixWeights w;
    w.embed = param(m, site, "prefix.embed", {length, d}, {Init::Kind::normal, std});
    w.in = {param(m, site, "prefix.in.weight", {mid, d}, init),
            param(m, site, "prefix.in.bias", {mid}, init, {.decay = false})};
    return first_layers[site] = w;
  }

  bool reads_base() const override { return init == "text"; }

  // What every attention has for `tokens`, repeated to `length`, by its q's site.
  void read_base(Model& m) override {
    Batch batch;
    for (int i = 0; i < length; ++i)
      batch.token.push_back(tokens[static_cast<std::size_t>(i) % tokens.size()][0]);
    batch.length = {length}, batch.example = {0};
    if (m.encoder) batch.source = std::make_shared<Batch>(batch);
    std::vector<Handle> handles;
    for (Block* block : m.all_blocks())
      for (Attention* attention : {&block->attention, block->cross ? &*block->cross : nullptr}) {
        if (!attention) continue;
        handles.push_back(attention->banks.add("words", [&, attention](Attn a, const Ctx&) {
          words[attention->q.site] = {a.k.value().as_contiguous(), a.v.value().as_contiguous()};
          return a;
        }));
      }
    NoRecord off;
    Ctx ctx;
    m.forward(batch, ctx);
  }

  // How many attentions of a stack have a prefix.
  std::int64_t attentions(const Arch& a) const {
    std::int64_t n = 0;
    for (const Arch& stack : a.stacks())
      if (std::find(stacks.begin(), stacks.end(), stack.stack) != stacks.end())
        n += where.count(stack.layers) *
             (where.has(Part::attn) + (stack.crosses() && where.has(Part::cross)));
    return n;
  }

  std::int64_t formula(const Arch& a) const override {
    const std::int64_t d = a.width, kv = std::int64_t{a.kv_heads} * a.head_width(), p = length;
    if (!mlp) return attentions(a) * 2 * p * kv;
    std::int64_t kinds = 0;
    for (const Arch& stack : a.stacks())
      if (std::find(stacks.begin(), stacks.end(), stack.stack) != stacks.end() &&
          where.count(stack.layers) > 0)
        kinds += where.has(Part::attn) + (stack.crosses() && where.has(Part::cross));
    return kinds * (p * d + mid * (d + 1)) + attentions(a) * 2 * kv * (mid + 1);
  }

  std::map<Site, PrefixWeights> first_layers;
  Activations words;  // of init=text
};

}  // namespace

std::unique_ptr<Adapter> make_prefix(Options& o, const Arch& a) {
  return std::make_unique<Prefix>(o, a);
}

}  // namespace graft
