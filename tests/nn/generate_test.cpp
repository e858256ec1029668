// Generation: token for token what transformers generates, and what the cache may not change.
#include "nn/generate.h"

#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "tests/nn/model_fixtures.h"
#include "tests/nn/small_models.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Tokens = std::vector<std::int32_t>;

GenerateSpec spec_of(const ordered_json& settings) {
  GenerateSpec s;
  s.max_tokens = 8;
  for (const auto& [key, value] : settings.items()) {
    if (key == "eos_token_id")
      s.stop = value.get<Tokens>();
    else if (key == "no_repeat_ngram_size")
      s.no_repeat_ngram = value;
    else if (key == "min_new_tokens")
      s.min_tokens = value;
    else if (key == "repetition_penalty")
      s.repetition_penalty = value;
    else if (key == "num_beams")
      s.beams = value;
    else if (key == "length_penalty")
      s.length_penalty = value;
    else if (key == "early_stopping")
      s.until = value == true ? GenerateSpec::Until::beams_full : GenerateSpec::Until::never_better;
    else
      FAIL("unknown setting " << key);
  }
  return s;
}

// Greedy, everything read again for every token.
Tokens slowly(const Model& model, Tokens all, int count) {
  std::shared_ptr<Batch> source;
  if (model.encoder) {
    source = std::make_shared<Batch>();
    source->token = all, source->length = {static_cast<int>(all.size())}, source->example = {0};
    all = {model.arch().start};
  }
  const std::size_t prompt = all.size();
  for (int i = 0; i < count; ++i) {
    Batch batch;
    batch.source = source;
    batch.token = all, batch.length = {static_cast<int>(all.size())}, batch.example = {0};
    const std::vector<double> logits = logits_of(model, batch).value().to_vector();
    const auto last = logits.end() - model.arch().vocab;
    all.push_back(static_cast<std::int32_t>(std::max_element(last, logits.end()) - last));
  }
  return {all.begin() + static_cast<std::ptrdiff_t>(prompt), all.end()};
}

}  // namespace

TEST_CASE("greedy and beam search give transformers' tokens, one prompt at a time and together") {
  for (const char* family : {"gpt2", "opt", "llama", "t5", "t5-gated"}) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    const ordered_json all = ordered_json::parse(read_file(fixture(family) / "generated.json"));
    std::map<std::string, std::vector<std::pair<Tokens, Tokens>>> by_settings;
    for (const auto& one : all) {
      CAPTURE(one.dump());
      GenerateSpec spec = spec_of(one.at("settings"));
      const Tokens prompt = one.at("prompt"), expected = one.at("tokens");
      if (prompt.size() == 12) spec.max_tokens = 1;
      CHECK(generate(*model, {prompt}, spec).at(0).tokens == expected);
      if (prompt.size() < 12) by_settings[one.at("settings").dump()].emplace_back(prompt, expected);
    }
    for (const auto& entry : by_settings) {
      const auto& [settings, pairs] = entry;
      CAPTURE(entry.first);
      REQUIRE(pairs.size() == 3);
      std::vector<Tokens> prompts;
      for (const auto& [prompt, expected] : pairs) prompts.push_back(prompt);
      const auto together = generate(*model, prompts, spec_of(ordered_json::parse(settings)));
      for (std::size_t i = 0; i < pairs.size(); ++i) CHECK(together[i].tokens == pairs[i].second);
    }
  }
}

TEST_CASE("a step that reads on from the cache has the bits of reading everything again") {
  for (const char* family : {"gpt2", "opt", "llama", "t5", "t5-gated"}) {
    CAPTURE(family);
    const auto model = load_model(fixture(family));
    NoRecord off;
    const Tokens tokens{7, 31, 8, 8, 44, 12, 9, 30, 5, 21, 17};
    const std::vector<std::vector<int>> cuts{{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {4, 3, 1, 3}, {11}};
    Batch whole;
    whole.token = tokens, whole.length = {11}, whole.example = {0};
    auto source = std::make_shared<Batch>();
    source->token = {9, 8, 7, 22, 41}, source->length = {5}, source->example = {0};
    whole.source = source;
    Ctx plain;
    const Tensor all = model->forward(whole, plain).rows;
    for (const auto& cut : cuts) {
      KvCache cache(model->arch().layers, 2);
      std::int64_t at = 0;
      for (int n : cut) {
        Batch batch;  // beside it a sequence of another length
        const auto begin = tokens.begin() + at;
        batch.token.assign(begin, begin + n);
        batch.token.push_back(3);
        batch.length = {n, 1}, batch.example = {0, 1};
        auto sources = std::make_shared<Batch>(*source);
        sources->token.push_back(6), sources->length.push_back(1), sources->example.push_back(1);
        batch.source = sources;
        Ctx ctx;
        ctx.cache = &cache;
        const Tensor rows = model->forward(batch, ctx).rows;
        CHECK(same_bits(rows.value().slice(0, 0, n).clone(),
                        all.value().slice(0, at, at + n).clone()));
        at += n;
      }
    }
  }
}

TEST_CASE("a cache grows by doubling, but not beyond the rows it expects") {
  const auto room = [](KvCache& cache, int rows) {
    const Array k = Array::zeros({rows, 2});
    return cache.extend(0, k, k, {rows}).k.dim(0);
  };
  KvCache known(1, 1, 300), open(1, 1);
  CHECK(room(known, 10) == 32);
  CHECK(room(known, 190) == 320);  // 300 in whole steps of 32
  CHECK(room(known, 120) == 320);
  CHECK(room(known, 1) == 640);  // more than expected
  CHECK(room(open, 40) == 64);
  CHECK(room(open, 25) == 128);
}

TEST_CASE("generation ends where the model has no more positions, and says so") {
  const auto model = load_model(fixture("gpt2"));
  GenerateSpec spec;
  spec.max_tokens = 50;
  const Tokens prompt{5, 6, 7, 8};
  const Generated g = generate(*model, {prompt}, spec).at(0);
  CHECK(g.tokens.size() == 9);  // the twelfth position's token, and the one after it
  CHECK(g.end == Generated::End::positions);
  CHECK(g.tokens == slowly(*model, prompt, 9));
  spec.beams = 2;
  CHECK(generate(*model, {prompt}, spec).at(0).tokens.size() == 9);
  spec.beams = 1;
  for (const char* family : {"llama", "t5", "t5-gated"}) {
    const auto relative = load_model(fixture(family));
    CHECK(generate(*relative, {prompt}, spec).at(0).tokens == slowly(*relative, prompt, 50));
  }
}

TEST_CASE("edits act while a model generates: banks join every step and are read once") {
  const auto model = load_model(fixture("llama"));
  const auto bank = [&](double gate) {
    std::vector<Handle> handles;
    for (auto& block : model->blocks) {
      Array k = Array::empty({3, block->attention.k.out_width()});
      for (std::int64_t i = 0; i < k.numel(); ++i)
        k.data<float>()[i] = static_cast<float>(std::sin(double(i)));
      handles.push_back(block->attention.banks.add("bank", [=](Attn a, const Ctx&) {
        a.banks.push_back({k, k, gate != 0 ? Tensor(Array::full({1}, gate)) : Tensor()});
        return a;
      }));
    }
    return handles;
  };
  GenerateSpec spec;
  spec.max_tokens = 7;
  const Tokens prompt{5, 6, 7}, bare = generate(*model, {prompt}, spec).at(0).tokens;
  for (double gate : {0.0, 2.0}) {
    const auto handles = bank(gate);
    const auto both = generate(*model, {prompt, {9}}, spec);
    CHECK(both[0].tokens == slowly(*model, prompt, 7));
    CHECK(both[1].tokens == slowly(*model, {9}, 7));
    CHECK(both[0].tokens != bare);
  }
  CHECK(generate(*model, {prompt}, spec).at(0).tokens == bare);
}

TEST_CASE("draws follow the probabilities, among the k likeliest and within the nucleus") {
  const std::vector<double> scores{std::log(0.5), std::log(0.3), std::log(0.15), std::log(0.05),
                                   -std::numeric_limits<double>::infinity()};
  const auto share = [&](const GenerateSpec& spec) {
    std::vector<double> count(5, 0.0);
    for (int i = 0; i < 10000; ++i)
      count[static_cast<std::size_t>(draw(scores, spec, (i + 0.5) / 10000))] += 1e-4;
    return count;
  };
  const auto near = [](const std::vector<double>& a, const std::vector<double>& b) {
    for (std::size_t i = 0; i < a.size(); ++i)
      if (std::abs(a[i] - b[i]) > 1e-3) return false;
    return true;
  };
  GenerateSpec spec;
  spec.sample = true;
  CHECK(near(share(spec), {0.5, 0.3, 0.15, 0.05, 0}));
  spec.top_k = 2;
  CHECK(near(share(spec), {0.625, 0.375, 0, 0, 0}));
  spec.top_k = 0, spec.top_p = 0.9;
  CHECK(near(share(spec), {0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0, 0}));
  spec.top_p = 1e-9;
  CHECK(near(share(spec), {1, 0, 0, 0, 0}));
  spec.top_p = 1, spec.temperature = 0.5;
  CHECK(near(share(spec), {0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365, 0}));
}

TEST_CASE("a sampled answer depends on its seed and number, not on its neighbours") {
  const auto model = load_model(fixture("llama"));
  GenerateSpec spec;
  spec.sample = true, spec.max_tokens = 20, spec.seed = 3, spec.temperature = 2;
  const Tokens prompt{5, 6, 7};
  const auto alone = generate(*model, {prompt}, spec).at(0).tokens;
  const auto both = generate(*model, {prompt, {8, 9}}, spec);
  CHECK(both[0].tokens == alone);
  CHECK(generate(*model, {prompt}, spec).at(0).tokens == alone);
  std::vector<Tokens> told(2);
  generate(*model, {prompt, {8, 9}}, spec, [&](int sequence, std::int32_t token) {
    told[static_cast<std::size_t>(sequence)].push_back(token);
  });
  CHECK(told[0] == alone);
  CHECK(told[1] == both[1].tokens);
  spec.seed = 4;
  CHECK(generate(*model, {prompt}, spec).at(0).tokens != alone);
}

TEST_CASE("generation says what is wrong with its settings and prompts") {
  const auto model = load_model(fixture("gpt2"));
  const auto said = [&](auto change, const std::vector<Tokens>& prompts = {{5}}) {
    GenerateSpec spec;
    change(spec);
    return error_of([&] { generate(*model, prompts, spec); });
  };
  using S = GenerateSpec;
  contains(said([](S&) {}, {{}}), "prompt 0 is empty");
  contains(said([](S&) {}, {{5}, Tokens(13, 5)}), "prompt 1 has 13 tokens; the model has 12");
  contains(said([](S&) {}, {{50}}), "token 50");
  contains(said([](S& s) { s.max_tokens = 0; }), "max >= 1");
  contains(said([](S& s) { s.temperature = 0, s.sample = true; }), "temperature 0");
  contains(said([](S& s) { s.temperature = 0.5; }), "in sampling only");
  contains(said([](S& s) { s.beams = 2, s.sample = true; }), "does not sample");
  contains(said([](S& s) { s.beams = 30; }), "30 beams over a vocabulary of 50");
  contains(said([](S& s) { s.stop = {50}; }), "stop token 50");
  contains(said([](S& s) {
             s.top_p = 0;
             s.sample = true;
           }),
           "top-p 0");
  contains(said([](S& s) { s.no_repeat_ngram = -1; }), "no_repeat_ngram -1");
  const auto masked = load_model(fixture("bert"));
  contains(error_of([&] { generate(*masked, {{5}}, {}); }), "need a decoder");
}
