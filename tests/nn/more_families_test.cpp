// What the families that came later have of their own: windows, norms of heads, other names.
#include <doctest/doctest.h>

#include <cmath>
#include <set>

#include "nn/models/config.h"
#include "nn/models/family.h"
#include "nn/models/heads.h"
#include "nn/models/presets.h"
#include "peft/part_shapes.h"
#include "peft/peft_modules.h"
#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

Batch one_text(int tokens) {
  Batch batch;
  for (int i = 0; i < tokens; ++i) batch.token.push_back(5 + i);
  batch.length = {tokens}, batch.example = {0};
  return batch;
}

}  // namespace

TEST_CASE("Mistral's window is no limit to texts that fit in it, and longer ones are refused") {
  const auto model = load_model(fixture("mistral"));
  CHECK(model->arch().window == 10);
  CHECK(model->arch().head_width() == 6);
  const auto run = [&](int tokens) {
    const Batch batch = one_text(tokens);
    Ctx ctx;
    return model->forward(batch, ctx).rows.value();
  };
  CHECK(run(10).dim(0) == 10);
  contains(error_of([&] { run(11); }), "has a window (sliding_window) of 10 tokens");
  Copy copy("mistral");
  const auto window = [&](const ordered_json& value) {
    copy.set("sliding_window", value);
    return load_arch(copy.path).window;
  };
  CHECK(window(nullptr) == 0);
  CHECK(window(12) == 0);  // all positions that the model has
  CHECK(window(11) == 11);
  copy.erase("sliding_window");  // 4096
  CHECK(load_arch(copy.path).window == 0);
  copy.set("max_position_embeddings", 32768);
  CHECK(load_arch(copy.path).window == 4096);
}

TEST_CASE("what config.json leaves out is each family's own") {
  Copy mistral("mistral"), qwen3("qwen3");
  mistral.set("num_attention_heads", 16);
  mistral.erase("num_key_value_heads");
  CHECK(load_arch(mistral.path).kv_heads == 8);
  mistral.set("num_key_value_heads", nullptr);
  CHECK(load_arch(mistral.path).kv_heads == 16);
  mistral.erase("head_dim");
  CHECK(load_arch(mistral.path).head_width() == 1);
  qwen3.erase("head_dim");
  CHECK(load_arch(qwen3.path).head_width() == 128);
  CHECK(load_arch(qwen3.path).sep == -1);
}

TEST_CASE("DistilBERT drops nothing of what attention gives") {
  Copy copy("distilbert");
  copy.set("attention_dropout", 0.0);
  copy.set("dropout", 0.5);
  const auto model = load_model(copy.path);
  const Batch batch = one_text(4);
  Ctx plain, train{.train = true, .key = {1, 2}};
  const Sequence s = model->embed(batch, plain);
  train.address = s.address(), train.sequence = &s, plain.sequence = &s;
  const Attention& attention = model->blocks[0]->attention;
  const Tensor a = attention(s.rows, s.rows, plain), b = attention(s.rows, s.rows, train);
  CHECK(same_bits(a.value(), b.value()));
  const Mlp& mlp = model->blocks[0]->mlp;
  CHECK(!same_bits(mlp(s.rows, s.rows, plain).value(), mlp(s.rows, s.rows, train).value()));
}

TEST_CASE("a DistilBERT without its vocabulary head has no matrix for pooling") {
  Copy body("distilbert");
  body.rename([](const std::string& name) {
    return name.starts_with("vocab_") ? std::vector<std::string>{}
                                      : std::vector<std::string>{name.substr(11)};
  });
  body.set("architectures", {"DistilBertModel"});
  const auto model = load_model(body.path);
  CHECK(!model->arch().lm);
  CHECK(!model->arch().pooler);
  CHECK(!head_begins_with_pooler(model->arch()));
  const Folder again;
  save_model(*model, again.path);
  CHECK(load_model(again.path)->hash() == model->hash());
}

TEST_CASE("a norm of heads learns: its gradient is the loss's change") {
  Arch arch = load_arch(fixture("qwen3"));
  Model model(arch, Build{.dtype = Dtype::f64, .seed = 5});
  Weight& place = model.blocks[1]->attention.k_norm;
  Parameter& gain = place.parameter();
  CHECK(gain.label() == "decoder 1 k norm");
  CHECK(hf_name(arch, gain.site, gain.name) == "model.layers.1.self_attn.k_norm.weight");
  Batch batch = one_text(6);
  batch.token_label = {6, 7, 8, 9, 10, 11};
  const auto loss = [&] {
    Ctx ctx;
    return model.lm_loss(batch, ctx);
  };
  const Array start = gain.value.value();
  gain.value = Tensor::leaf(start);
  const double of_second = backward(loss())[gain.value].at(2);
  const auto at = [&](double by) {
    Array moved = start.clone();
    moved.data<double>()[2] += by;
    gain.value = Tensor(moved);
    return loss().value().at(0);
  };
  const double slope = (at(1e-5) - at(-1e-5)) / 2e-5;
  CHECK(std::abs(of_second) > 1e-8);
  CHECK(std::abs(slope - of_second) <= 1e-6 * std::max(1.0, std::abs(slope)));
}

TEST_CASE("PEFT's target modules are those of each family") {
  const auto targets = [](const char* name, std::set<Part> parts) {
    const Arch arch = load_arch(fixture(name));
    std::set<std::string> modules;
    for (const PeftModule& m : peft_modules(arch))
      if (parts.contains(m.pieces[0].site.part)) modules.insert(m.name);
    return targets_for(arch, modules);
  };
  using Names = std::vector<std::string>;
  using enum Part;
  CHECK(targets("distilbert", {q, k, v, o}) == Names{"k_lin", "out_lin", "q_lin", "v_lin"});
  CHECK(targets("distilbert", {up, down}) == Names{"lin1", "lin2"});
  for (const char* name : {"mistral", "qwen2", "qwen3"}) {
    CAPTURE(name);
    CHECK(targets(name, {q, k, v, o}) == Names{"k_proj", "o_proj", "q_proj", "v_proj"});
    CHECK(targets(name, {gate, up, down}) == Names{"down_proj", "gate_proj", "up_proj"});
  }
  CHECK(targets("xlm-roberta", {q, v}) == Names{"query", "value"});
}

TEST_CASE("of Qwen2's matrices q, k and v have biases, and no others") {
  const Arch arch = load_arch(fixture("qwen2"));
  Model model(arch, {.storage = false});
  for (const Linear* l : model.linears({linear_parts(arch)})) {
    const Part part = l->site.part;
    CHECK(bool(l->b) == (part == Part::q || part == Part::k || part == Part::v));
  }
}
