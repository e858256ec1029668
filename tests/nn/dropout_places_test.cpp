// Where dropout falls and how its draws are addressed: what stands before each place is looked at,
// dropped here by the place's name and the rows' examples and places, and compared with what stands
// after it, bit for bit.
#include <doctest/doctest.h>

#include <map>

#include "peft/methods.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr double kP = 0.5;
constexpr Key kKey{3, 7};

// Tensors of blocks, linears and adapters, written down as they pass.
struct Probe {
  template <class Slot>
  void at(Slot& slot, const std::string& name) {
    handles.push_back(slot.add("probe", [this, name](Tensor x, const auto&...) {
      seen[name] = x.value().clone();
      return x;
    }));
  }
  void at(Linear& linear) { at(linear.out, to_string(linear.site)); }
  Tensor operator[](const std::string& name) const { return Tensor(seen.at(name)); }

  std::map<std::string, Array> seen;
  std::vector<Handle> handles;
};

RowAddress address_of(const Batch& batch) {
  std::vector<std::int32_t> example, place;
  for (std::size_t s = 0; s < batch.length.size(); ++s)
    for (int i = 0; i < batch.length[s]; ++i) {
      example.push_back(static_cast<std::int32_t>(batch.example[s]));
      place.push_back(i);
    }
  return {Array::of(example), Array::of(place)};
}

Tensor by_hand(const Tensor& x, const std::string& stream, const RowAddress& rows) {
  return dropout(x, kP, {kKey, stream_id(stream.c_str())}, rows);
}

// `after` is `before` with that place's dropout in training, and `before` itself else.
void check_place(const Tensor& before, const Tensor& after, const std::string& stream,
                 const RowAddress& rows, bool drops) {
  CAPTURE(stream);
  const Tensor want = by_hand(before, stream, rows);
  CHECK_FALSE(same_bits(want.value(), before.value()));
  CHECK(same_bits(after.value(), drops ? want.value() : before.value()));
}

std::vector<Arch> archs() {
  Arch post = small_arch(Stack::encoder);
  post.pre_norm = post.final_norm = false;
  Arch t5 = small_arch(Stack::decoder);
  t5.family = "t5";
  t5.encoder_layers = 2, t5.relative_buckets = 8, t5.relative_distance = 16;
  t5.learned_positions = t5.biases = t5.scaled_scores = false;
  t5.rms = t5.inner_dropout = true;
  Arch gated = t5;
  gated.gated = true;
  std::vector<Arch> all{
      small_arch(Stack::encoder), small_arch(Stack::decoder), post, llama_like(), t5, gated};
  for (Arch& a : all) a.dropout = kP;
  return all;
}

Batch batch_of(const Arch& a) {
  Batch b = ragged(a, {5, 3, 6}, 4);
  if (a.crosses()) b.source = std::make_shared<Batch>(ragged(a, {4, 7, 2}, 4));
  return b;
}

// One stack's blocks in training or not; its batch is of its own rows.
void check_blocks(Model& m, const Batch& batch, bool train) {
  const Arch& a = m.arch();
  const RowAddress rows = address_of(batch);
  const std::string stack = name(a.stack);
  Probe probe;
  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    Block& block = *m.blocks[i];
    probe.at(block.attention.o);
    probe.at(block.attention.out, fmt::format("{} attention", i));
    if (block.cross)
      probe.at(block.cross->o), probe.at(block.cross->out, fmt::format("{} cross", i));
    if (block.mlp.gate) probe.at(*block.mlp.gate);
    probe.at(block.mlp.up);
    probe.at(block.mlp.hidden, fmt::format("{} hidden", i));
    probe.at(block.mlp.down);
    probe.at(block.mlp.out, fmt::format("{} mlp", i));
    probe.at(block.out, fmt::format("{} block", i));
  }
  Ctx ctx{.train = train, .key = kKey};
  const Tensor end = m.forward(batch, ctx).rows;
  for (std::size_t i = 0; i < m.blocks.size(); ++i) {
    const auto site = [&](const char* part) { return fmt::format("{} {} {}", stack, i, part); };
    const auto after = [&](const char* what) { return probe[fmt::format("{} {}", i, what)]; };
    check_place(probe[site("o")], after("attention"), site("o/dropout"), rows, train);
    if (a.crosses())
      check_place(probe[site("xo")], after("cross"), site("xo/dropout"), rows, train);
    check_place(probe[site("down")], after("mlp"), site("down/dropout"), rows, train);
    const Tensor up = probe[site("up")];
    const Tensor h = !a.gated                    ? map(a.activation, up)
                     : a.activation == Map::silu ? swiglu(probe[site("gate")], up)
                                                 : map(a.activation, probe[site("gate")]) * up;
    check_place(h, after("hidden"), site("up/dropout"), rows, train && a.inner_dropout);
  }
  const Tensor last = probe[fmt::format("{} block", m.blocks.size() - 1)];
  if (m.final_norm)
    check_place((*m.final_norm)(last, ctx), end, stack + " norm_out/dropout", rows,
                train && a.inner_dropout);
}

void check_embedding(const Model& m, const Batch& batch, const std::string& stack, bool drops) {
  Ctx plain{.key = kKey}, training{.train = true, .key = kKey};
  check_place(m.embed(batch, plain).rows, m.embed(batch, training).rows, stack + " embed/dropout",
              address_of(batch), drops);
}

Tensor parameter(const Adaptation& adaptation, const Site& site, const std::string& name) {
  for (const auto& p : adaptation.parameters())
    if (p->site == site && p->name == name) return p->value;
  fail("test: no parameter {} at {}", name, to_string(site));
}

}  // namespace

TEST_CASE("sub-layers drop what they give, and T5 what lies within and after the last norm, too") {
  for (const Arch& a : archs()) {
    CAPTURE(a.family);
    CAPTURE(a.gated);
    SmallModel m(a);
    const Batch batch = batch_of(a);
    for (const bool train : {true, false}) {
      CAPTURE(train);
      check_blocks(m, batch, train);
      if (m.encoder) check_blocks(*m.encoder, *batch.source, train);
    }
  }
}

TEST_CASE("the embedding drops the rows that it gives, where the model has it so") {
  for (Arch a : archs())
    for (const bool drops : {true, false}) {
      CAPTURE(a.family);
      a.embed_dropout = drops;
      const SmallModel m(a);
      const Batch batch = batch_of(a);
      // One name for all models of one stack.
      check_embedding(m, batch, a.crosses() ? "decoder" : "encoder", drops);
      if (m.encoder) check_embedding(*m.encoder, *batch.source, "encoder", drops);
    }
}

TEST_CASE("a bottleneck drops what it adds, alone") {
  SmallModel m(small_arch(Stack::encoder));
  const Batch batch = batch_of(m.arch());
  Probe before, after;
  const auto watch = [&](Probe& probe) {
    for (std::size_t i = 0; i < m.blocks.size(); ++i) {
      probe.at(m.blocks[i]->attention.out, fmt::format("{} attn", i));
      probe.at(m.blocks[i]->mlp.out, fmt::format("{} mlp", i));
    }
  };
  watch(before);
  Adaptation adaptation(all_methods(), "houlsby:m=3,norms=no,f=tanh,dropout=0.5", m);
  for (const auto& p : adaptation.parameters()) add_noise(*p, 0.3);
  watch(after);
  for (const bool train : {true, false}) {
    Ctx ctx{.train = train, .key = kKey};
    (void)m.forward(batch, ctx);
    for (int i = 0; i < m.arch().layers; ++i)
      for (const Part part : {Part::attn, Part::mlp}) {
        const Site site{Stack::encoder, i, part};
        CAPTURE(to_string(site));
        const auto of = [&](const char* name) { return parameter(adaptation, site, name); };
        const std::string what = fmt::format("{} {}", i, name(part));
        const Tensor y = before[what];
        const Tensor u = linear(tanh(linear(y, of("down.weight"), of("down.bias"))),
                                of("up.weight"), of("up.bias"));
        const Tensor dropped = by_hand(
            u, fmt::format("encoder {} {}/houlsby dropout", i, name(part)), address_of(batch));
        CHECK(same_bits(after[what].value(), (y + (train ? dropped : u)).value()));
        CHECK_FALSE(same_bits((y + dropped).value(), (y + u).value()));
      }
  }
}

TEST_CASE("LoRA drops what its A reads, by the address of those rows") {
  for (const Arch& a : archs()) {
    CAPTURE(a.family);
    SmallModel m(a);
    const Batch batch = batch_of(a);
    std::vector<Linear*> linears;
    for (const auto& block : m.blocks) {
      linears.push_back(&block->attention.q), linears.push_back(&block->mlp.down);
      if (block->cross) linears.push_back(&block->cross->k);
    }
    Probe before, after;
    std::map<std::string, Array> read;
    std::vector<Handle> handles;
    for (Linear* l : linears) {
      before.at(*l);
      handles.push_back(l->out.add("input", [&read, l](Tensor y, const Tensor& x, const Ctx&) {
        read[to_string(l->site)] = x.value().clone();
        return y;
      }));
    }
    Adaptation adaptation(
        all_methods(),
        fmt::format("lora:r=2,alpha=4,on=q+down{},dropout=0.5", a.crosses() ? "+xk" : ""), m);
    for (const auto& p : adaptation.parameters()) add_noise(*p, 0.3);
    for (Linear* l : linears) after.at(*l);
    for (const bool train : {true, false}) {
      Ctx ctx{.train = train, .key = kKey};
      (void)m.forward(batch, ctx);
      for (const Linear* l : linears) {
        const std::string site = to_string(l->site), stream = site + "/lora dropout";
        CAPTURE(site);
        const RowAddress rows = address_of(l->site.part == Part::xk ? *batch.source : batch);
        const Tensor x(read.at(site)), lora_a = parameter(adaptation, l->site, "lora_A");
        const auto sum = [&](const Tensor& low) {
          return add_linear(before[site], low, parameter(adaptation, l->site, "lora_B"), 2).value();
        };
        const Array plain = sum(linear(x, lora_a)),
                    dropped = sum(linear(by_hand(x, stream, rows), lora_a)),
                    wrong = sum(by_hand(linear(x, lora_a), stream, rows));
        CHECK(same_bits(after[site].value(), train ? dropped : plain));
        CHECK_FALSE(same_bits(dropped, plain));
        CHECK_FALSE(same_bits(dropped, wrong));
      }
    }
  }
}
