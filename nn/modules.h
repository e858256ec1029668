// The modules of a transformer and their slots. forward reads like the papers; no method of
// adapting a model is named here. Modules neither copy nor move: handles point at their slots.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "nn/batch.h"
#include "nn/parameter.h"
#include "nn/slot.h"

namespace graft {

using EachWeight = std::function<void(Weight&)>;

// fixed() of a module: what it reads alone decides what it gives, at every step. It has no edits,
// nothing in it learns and, while training, it draws no dropout.
bool fixed(const Weight&);

// How a model reads on beyond the length that it was trained at: its rotary frequencies are
// lowered.
struct RopeScaling {
  // linear: all of them (Chen et al. 2023, 2306.15595). llama3: those that turn less than once in
  // `original` positions, by a factor that fades in from `high` turns to `low` (LLaMA 3.1's
  // release).
  enum class Kind { none, linear, llama3 } kind = Kind::none;
  double factor = 1, low = 1, high = 4;
  int original = 0;
  bool operator==(const RopeScaling&) const = default;
};

// The shapes that modules are built from. One value serves every family; nn/models/ fills it.
struct Arch {
  std::string family;  // as Hugging Face's model_type
  Stack stack = Stack::encoder;
  int vocab = 0, width = 0, layers = 0, heads = 0, kv_heads = 0, hidden = 0, positions = 0;
  int position_offset = 0;  // RoBERTa and OPT begin counting above 0
  int token_types = 0;      // rows of BERT's table of segments
  // > 0: an encoder of that many blocks reads a text, and the decoder's `layers` blocks write
  // another while they attend to it (Raffel et al. 2020, 1910.10683).
  int encoder_layers = 0;
  int head_size = 0;  // of each head's queries, keys and values; 0: width / heads
  bool learned_positions = true;
  double rope_theta = 0;  // > 0: rotary positions
  RopeScaling rope_scaling;
  // > 0: scores of attention get a bias by relative place, of which each head learns so many
  // (nn/relative.h); places from relative_distance on share the last.
  int relative_buckets = 0, relative_distance = 128;
  bool causal = false, pre_norm = true, rms = false, gated = false, biases = true;
  bool qkv_biases_alone = false;  // of the linears with biases, q, k and v have them
  bool head_norms = false;        // an RMSNorm of each head's queries and keys, before they turn
  bool embed_norm = false, embed_dropout = true, final_norm = true, tied = true;
  bool lm_transform = false;  // BERT's dense + activation + norm before the vocabulary
  bool lm_bias = false;
  // Attention divides its scores by sqrt(head width); rows are divided by sqrt(width) before the
  // vocabulary product.
  bool scaled_scores = true, scaled_lm = false;
  bool inner_dropout = false;  // T5's one rate: everywhere below, too, and after the final norm
  bool attention_result_dropout = true;  // of the sub-layers' results, attention's, too
  // > 0: attention reaches back so many tokens, itself among them. Texts may be that long and no
  // longer: up to there it is attention without a window.
  int window = 0;
  // Without, only the body was saved: it has no head over the vocabulary. Some bodies come with a
  // matrix for pooling, which is kept for those who read it elsewhere.
  bool lm = true, pooler = false;
  Map activation = Map::gelu;
  double norm_eps = 1e-5;
  // Of what embeddings and sub-layers give, of attention's weights, and within the family's own
  // head for whole texts.
  double dropout = 0, attention_dropout = 0, head_dropout = 0;
  int pad = -1, cls = -1, sep = -1, mask = -1;
  int start = -1;  // what the decoder of an encoder-decoder begins with
  int head_width() const { return head_size > 0 ? head_size : width / heads; }
  int norms() const { return (2 + crosses()) * layers + embed_norm + final_norm; }  // in its stack
  bool crosses() const { return encoder_layers > 0; }
  bool biased(Part part) const {  // of a linear of the blocks
    return biases && (!qkv_biases_alone || part == Part::q || part == Part::k || part == Part::v);
  }
  Arch encoder() const;              // of an encoder-decoder's encoder, as a model of its own
  std::vector<Arch> stacks() const;  // the encoder's, if there is one, and itself
  bool operator==(const Arch&) const = default;
};

// x with dropout if ctx trains; the draws' stream is named by the site.
Tensor dropped(const Tensor& x, double p, const Ctx&, const RowAddress&, const Site&);

// y = W x + b.
struct Linear {
  // Starts from a Gaussian of variance scale^2 / (3 in): BERT's 0.02 at its width of 768, and as
  // much signal at any other width.
  Linear(const Build&, const Site&, int in, int out, bool bias, double scale = 1);
  Tensor operator()(const Tensor& x, const Ctx&) const;
  void each(const EachWeight&);
  bool fixed() const;
  int in() const { return in_; }
  int out_width() const { return out_; }

  const Site site;
  Weight w, b;                          // [out, in], [out]
  Slot<Tensor, Ctx>& weight = w.edits;  // W -> W': the exact form
  Slot<Tensor, Tensor, Ctx> out;        // y, given x: the cheap form

 private:
  int in_, out_;
};

// Gain and bias of a norm, as edits may change them.
struct Affine {
  Tensor gain, bias;  // bias is undefined in an RMSNorm
};

struct Norm {
  Norm(const Build&, const Site&, int width, double eps, bool rms);
  Tensor operator()(const Tensor& x, const Ctx&) const;
  void each(const EachWeight&);
  bool fixed() const;

  const Site site;
  Weight gain, bias;
  Slot<Affine, Ctx> affine;

 private:
  double eps_;
  bool rms_;
};

// Extra keys and values [P, kv_heads dh] for one attention. Without a gate they join the tokens'
// softmax; with one ([1] or [heads dh]) they have a softmax of their own, times the gate, added.
struct Bank {
  Tensor k, v, gate;
  int of = -1;  // >= 0: of the sequences alone that go through this adapter (Ctx::adapter)
};

// Those of a sequence's rows that a block goes on with once attention has all keys: the others' own
// results are not read.
struct Picked {
  Array rows;      // i32, ascending
  Sequence shape;  // of these rows; they themselves are not in it
  Tensor of(const Tensor& all) const { return gather(all, rows); }
};

// Queries, keys and values after projection and rotation.
struct Attn {
  Tensor q, k, v;
  double scale;
  std::vector<Bank> banks;
  bool across = false;  // k and v are an encoder's rows (undefined where a cache has them)
};

// What a sub-layer consumed, and the skip connection beside it.
struct Sub {
  Tensor x, residual;
};

// The angle per position of each pair of a head's entries: theta^(-2i/width), [width / 2]
// (Su et al. 2021, 2104.09864, equation 15), lowered as the scaling says.
Array rope_frequencies(int head_width, double theta, const RopeScaling& = {}, Dtype = Dtype::f32);

// Attention of a sequence to itself, or across: to the rows that an encoder has read
// (Sequence::memory), where no key has a place.
struct Attention {
  enum class To { itself, across };
  Attention(const Build&, const Arch&, int layer, To = To::itself);
  // x is what the sub-layer consumes (normed, if pre-norm); residual what its result is added to.
  Tensor operator()(const Tensor& x, const Tensor& residual, const Ctx&) const;
  // The same in two: what enters o, and the rest. With `some`, queries are of the picked rows
  // alone, and `after` is for these.
  Tensor mixed(const Tensor& x, const Ctx&, const Picked* some, const Ctx& after) const;
  Tensor rest(const Tensor& mixed, const Sub&, const Ctx&) const;
  void each(const EachWeight&);
  bool fixed(bool train) const;

  Linear q, k, v, o;
  Weight q_norm, k_norm;  // gains of Arch::head_norms, by the names `q norm` and `k norm`
  Slot<Attn, Ctx> banks;
  Slot<Tensor, Sub, Ctx> out;  // the sub-layer's y before it joins the residual

 private:
  Attn project(const Tensor& x, const Ctx&) const;
  Tensor heads_of(const Tensor& x, const Ctx&, const Picked* some, const Ctx& after) const;
  struct Attending;  // attend.cpp
  // `keys`: how many each sequence has, if not as many as queries.
  Tensor attend(const Attn&, const Ctx&, const std::vector<int>& keys) const;
  Attending part_of(const Attending&, const std::vector<int>& sequences) const;
  Tensor with_banks(Attending, const std::vector<Bank>&) const;
  To to_;
  int heads_, kv_heads_;
  bool causal_, scaled_;
  double dropout_, weight_dropout_, norm_eps_;
  Array frequency_;  // of rotary positions, or undefined
};

struct Mlp {
  Mlp(const Build&, const Arch&, int layer);
  Tensor operator()(const Tensor& x, const Tensor& residual, const Ctx&) const;
  void each(const EachWeight&);
  bool fixed(bool train) const;

  std::optional<Linear> gate;
  Linear up, down;
  Slot<Tensor, Ctx> hidden{Slot<Tensor, Ctx>::Of::rows};  // what enters `down`
  Slot<Tensor, Sub, Ctx> out;

 private:
  Tensor expanded(const Tensor& x, const Ctx&) const;
  Map activation_;
  double dropout_, inner_dropout_;
};

struct Block {
  Block(const Build&, const Arch&, int layer);
  // With `some`, the result is of the picked rows alone: on the host the bits that it has without.
  Tensor operator()(const Tensor& x, const Ctx&, const Picked* some = nullptr) const;
  void each(const EachWeight&);
  bool fixed(bool train) const;

  Norm norm1;
  Attention attention;
  std::optional<Norm> norm_x;  // before the attention across, where the model has an encoder
  std::optional<Attention> cross;
  Norm norm2;
  Mlp mlp;
  Slot<Tensor, Ctx> out{Slot<Tensor, Ctx>::Of::rows};  // the residual stream after the block

 private:
  bool pre_norm_;
};

struct Embedding {
  // With `shared`, another embedding's tokens are looked up, which must outlive this one.
  Embedding(const Build&, const Arch&, const Embedding* shared = nullptr);
  Sequence operator()(const Batch&, Ctx&) const;  // also fills ctx.address
  // The same sequence but for its rows, which are undefined, and before edits insert any.
  Sequence shape(const Batch&, Ctx&) const;
  void each(const EachWeight&);
  bool fixed(bool train) const;
  const Tensor& table() const { return shared_ ? shared_->table() : token.value(); }
  Tensor table(const Ctx& ctx) const { return shared_ ? shared_->table(ctx) : token(ctx); }

  Weight token, position, type;
  std::optional<Norm> norm;
  Slot<Sequence, Ctx> out;  // token rows before positions are added: edits may insert rows
  Dtype rows;               // of what it gives, and so of all that is computed of it

 private:
  Array types_of(const Batch&, const Sequence&) const;

  const Embedding* shared_;
  Stack stack_;
  int positions_, offset_, window_;
  double dropout_;
};

}  // namespace graft
