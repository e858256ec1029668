// Pretraining runs: windows of a corpus, and the same bits however often a run is stopped.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "experiments/pretrain/pretrain.h"
#include "nn/files/atomic.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "peft/folder.h"
#include "peft/methods.h"
#include "tests/experiments/small_pretraining.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

constexpr const char* kKinds[] = {"encoder", "decoder", "t5"};

}  // namespace

TEST_CASE("pretraining stopped and resumed ends with the bits of one run, and the same log") {
  for (const char* kind : kKinds) {
    const Folder folder;
    PretrainSpec spec = small_run(kind, folder);
    const Quiet quiet;
    const PretrainResult whole = pretrain(spec);
    CHECK(whole.step == 14);
    spec.out = folder / "parts";
    spec.stop_after = 3;
    CHECK(pretrain(spec).step == 3);
    CHECK(pretrain(spec).heldout_loss > 0);  // nothing left to do
    spec.stop_after = 8;
    pretrain(spec);
    std::ofstream(folder / "parts" / "log.jsonl", std::ios::app)
        << "{\"step\": 9, \"train_loss\": 1}\n{\"st";  // logged after the checkpoint, then killed
    spec.stop_after = 0;
    const PretrainResult parts = pretrain(spec);
    CHECK(parts.weights_hash == whole.weights_hash);
    CHECK(parts.heldout_loss == whole.heldout_loss);
    const auto tensors = [](const fs::path& p) {
      return read_file(p / "model" / "model.safetensors");
    };
    CHECK(tensors(folder / "parts") == tensors(folder / "whole"));
    std::string kept;  // lines of the stops themselves are extra
    std::ifstream log(folder / "parts" / "log.jsonl");
    for (std::string line; std::getline(log, line);) {
      const int step = nlohmann::json::parse(line).at("step");
      if (step % 5 == 0 || step == 14) kept += line + "\n";
    }
    CHECK(nlohmann::json::parse(kept.substr(kept.rfind('\n', kept.size() - 2) + 1)) ==
          nlohmann::json::parse([&] {
            const std::string all = read_file(folder / "whole" / "log.jsonl");
            return all.substr(all.rfind('\n', all.size() - 2) + 1);
          }()));
    const auto refused = [&](const auto& change) {
      PretrainSpec other = spec;
      change(other);
      contains(error_of([&] { pretrain(other); }), "other settings");
    };
    refused([](PretrainSpec& s) { s.seed = 1; });
    refused([](PretrainSpec& s) { s.schedule = Schedule::Kind::linear; });
    std::string text = read_file(spec.train);
    text[0] ^= 1;  // as many bytes, other ones
    std::ofstream(folder / "other") << text;
    refused([&](PretrainSpec& s) { s.heldout = folder / "other"; });
    spec.seed = 1;
    spec.out = folder / "more", spec.batch = 500;
    contains(error_of([&] { pretrain(spec); }), "one step takes 500");
  }
}

TEST_CASE("a model learns with query-key normalisation from its first step, and both are kept") {
  for (const char* kind : kKinds) {
    const Folder folder;
    PretrainSpec spec = small_run(kind, folder);
    const Quiet quiet;
    const PretrainResult plain = pretrain(spec);
    spec.out = folder / "normed", spec.methods = all_methods(), spec.method = "qknorm:gate=one";
    const PretrainResult normed = pretrain(spec);
    CHECK(normed.weights_hash != plain.weights_hash);
    spec.out = folder / "parts", spec.stop_after = 6;
    pretrain(spec);
    spec.stop_after = 0;
    CHECK(pretrain(spec).weights_hash == normed.weights_hash);
    const auto adapter = [&](const char* run) {
      return read_file(folder / run / "adapter" / "adapter_model.safetensors");
    };
    CHECK(adapter("parts") == adapter("normed"));
    // The folder of the model and the adapter on it compute what was trained.
    const auto model = load_model(folder / "normed" / "model");
    const auto edits = load_adapter(folder / "normed" / "adapter", all_methods(), *model);
    CHECK(edits->parameters()[0]->value.value().at(0) != doctest::Approx(12.3197).epsilon(1e-6));
    spec.method = "";
    contains(error_of([&] { pretrain(spec); }), "other settings");
  }
}

TEST_CASE("pretraining killed at random moments ends with the bits and the log of one run") {
  const Threads one(1);
  const Folder folder;
  PretrainSpec spec = small_run("encoder", folder);
  spec.save_minutes = 0;
  std::uint64_t whole = 0;
  {
    const Quiet quiet;
    whole = pretrain(spec).weights_hash;
  }
  spec.out = folder / "killed";
  std::mt19937 random(7);
  int resumed = 0;
  for (int kills = 0;; ++kills) {
    REQUIRE(kills < 300);
    const bool before = fs::exists(spec.out / "state.safetensors");
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      const Quiet quiet;
      std::ofstream(folder / "hash") << pretrain(spec).weights_hash << std::flush;
      ::_exit(0);
    }
    ::usleep(static_cast<useconds_t>(2000 + random() % (10000 + 2000 * kills)));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    resumed += before;
    if (!WIFEXITED(status)) continue;
    REQUIRE(WEXITSTATUS(status) == 0);
    break;
  }
  CHECK(resumed > 0);
  CHECK(read_file(folder / "hash") == std::to_string(whole));
  CHECK(read_file(spec.out / "log.jsonl") == read_file(folder / "whole" / "log.jsonl"));
}

TEST_CASE("a deeper model starts from a smaller one's blocks, over and over") {
  Arch shallow = small_arch(Stack::encoder, 12, 2, 2), deep = shallow;
  deep.layers = 4;
  SmallModel from(shallow);
  Model to(deep, {.seed = 99});
  stack_from(to, from);
  for (int i = 0; i < 4; ++i)
    CHECK(same_bits(to.blocks[i]->mlp.up.w.value().value(),
                    from.blocks[i % 2]->mlp.up.w.value().value()));
  CHECK(same_bits(to.embedding.token.value().value(), from.embedding.token.value().value()));
  deep.width = 24;
  Model wider(deep, {});
  contains(error_of([&] { stack_from(wider, from); }), "width 24");
  Arch elsewhere = shallow;
  elsewhere.rope_theta = 500;
  Model rotated(elsewhere, {});
  contains(error_of([&] { stack_from(rotated, from); }), "number of layers only");
}

TEST_CASE("a run starts from the model that a shallower run wrote") {
  for (const std::string kind : kKinds) {
    const Folder folder;
    const Quiet quiet;
    PretrainSpec spec = small_run(kind, folder);
    spec.arch.dropout = 0;
    spec.steps = spec.stop_after = 2;
    spec.out = folder / "shallow";
    pretrain(spec);
    if (kind == "t5") spec.arch.encoder_layers = 6;
    spec.arch.layers = 4, spec.start_from = spec.out / "model", spec.out = folder / "deep";
    CHECK(pretrain(spec).step == 2);
  }
}

TEST_CASE(
    "windows of a corpus: every epoch its own order, masked as the rule says, and repeatable") {
  const Folder folder;
  const PretrainSpec spec = small_run("encoder", folder);
  const CorpusWindows encoder(spec.train, tokenizer(), 16, Objective::masked),
      decoder(spec.train, tokenizer(), 16, Objective::causal);
  const std::int64_t n = encoder.windows(1, 0);
  CHECK(n * 14 <= encoder.tokens());
  CHECK((n + 2) * 14 > encoder.tokens());
  const Batch all = encoder.batch(1, 0, 0, n, {0.15}), again = encoder.batch(1, 0, 0, n, {0.15});
  CHECK(all.token == again.token);
  CHECK(all.token_label == again.token_label);
  CHECK(std::set(all.example.begin(), all.example.end()).size() == static_cast<std::size_t>(n));
  const Batch part = encoder.batch(1, 0, 2, 3, {0.15});  // any part of it is the same
  CHECK(std::equal(part.token.begin(), part.token.end(), all.token.begin() + 2 * 16));
  CHECK(encoder.batch(1, 1, 0, 4, {0.15}).token != encoder.batch(1, 0, 0, 4, {0.15}).token);
  for (std::size_t i = 0; i < all.token.size(); ++i) {
    if (i % 16 == 0) CHECK(all.token[i] == 2);
    if (i % 16 == 15) CHECK(all.token[i] == 3);
    CHECK(all.token_label[i] != 3);
  }
  const Batch next = decoder.batch(1, 0, 0, 3, {});
  for (std::size_t i = 0; i < next.token.size(); ++i)
    CHECK(next.token_label[i] == (i % 16 == 15 ? -1 : next.token[i + 1]));
  contains(error_of([&] { encoder.batch(1, 0, n, 1, {}); }), fmt::format("of {}", n));
}

TEST_CASE("of the tokens that are predicted 80 % are masked, 10 % others and 10 % as they were") {
  const Folder folder;
  const PretrainSpec spec = small_run("encoder", folder);
  const CorpusWindows text(spec.train, tokenizer(), 16, Objective::masked);
  // Draws that differ from epoch to epoch, until a share of 10 % is known to a part in 180.
  std::int64_t open = 0, chosen = 0, masked = 0, kept = 0, other = 0;
  std::set<std::int32_t> others;
  for (int epoch = 0; chosen < 300000; ++epoch) {
    const Batch b = text.batch(1, epoch, 0, text.windows(1, epoch), {0.15});
    for (std::size_t i = 0; i < b.token.size(); ++i) {
      const std::int32_t seen = b.token[i], label = b.token_label[i];
      if (i % 16 == 0 || i % 16 == 15 || (label < 0 && seen == 3)) continue;
      ++open;  // neither at the ends nor a separator
      if (label < 0) continue;
      ++chosen;
      masked += seen == 4, kept += seen == label;
      if (seen != 4 && seen != label) ++other, others.insert(seen);
    }
  }
  // A random token may be the mask or the token itself.
  const double all = static_cast<double>(chosen), one = 0.1 / tokenizer().size();
  CHECK(all == doctest::Approx(0.15 * static_cast<double>(open)).epsilon(0.03));
  CHECK(static_cast<double>(masked) == doctest::Approx((0.8 + one) * all).epsilon(0.03));
  CHECK(static_cast<double>(kept) == doctest::Approx((0.1 + one) * all).epsilon(0.03));
  CHECK(static_cast<double>(other) == doctest::Approx((0.1 - 2 * one) * all).epsilon(0.03));
  CHECK(others.size() > static_cast<std::size_t>(tokenizer().size()) * 9 / 10);  // of all kinds
  const Batch measured =
                  text.batch(1, 0, 0, text.windows(1, 0), {.rate = 0.15, .all_masked = true}),
              learned = text.batch(1, 0, 0, text.windows(1, 0), {0.15});
  CHECK(measured.token_label == learned.token_label);
  for (std::size_t i = 0; i < measured.token.size(); ++i)
    CHECK(measured.token[i] == (measured.token_label[i] < 0 ? learned.token[i] : 4));
}

TEST_CASE("each stack of a deeper encoder-decoder starts from the smaller one's own blocks") {
  Arch shallow = text_arch(), deep = shallow;
  shallow.encoder_layers = 1, deep.encoder_layers = 3, deep.layers = 4;
  SmallModel from(shallow);
  Model to(deep, {.seed = 99});
  stack_from(to, from);
  const auto up = [](Model& m, std::size_t i) { return m.blocks[i]->mlp.up.w.value().value(); };
  for (std::size_t i = 0; i < 4; ++i) {
    CHECK(same_bits(up(to, i), up(from, i % 2)));
    CHECK(same_bits(to.blocks[i]->cross->v.w.value().value(),
                    from.blocks[i % 2]->cross->v.w.value().value()));
  }
  for (std::size_t i = 0; i < 3; ++i) CHECK(same_bits(up(*to.encoder, i), up(*from.encoder, 0)));
  CHECK(same_bits(to.relative->table.value().value(), from.relative->table.value().value()));
  Model alone(small_arch(Stack::decoder, 12, 4, 2), {});
  contains(error_of([&] { stack_from(alone, from); }), "number of layers only");
}

TEST_CASE("dropped spans: so many tokens in so many spans, kept ones first, a span at the end") {
  const Key key{7, 2};
  std::set<std::vector<bool>> met;
  double first = 0;
  for (std::uint32_t window = 0; window < 400; ++window) {
    const std::vector<bool> gone = dropped_spans(128, {0.15, 3}, key, window);
    REQUIRE(gone.size() == 128);
    int tokens = 0, spans = 0;
    for (std::size_t i = 0; i < gone.size(); ++i) {
      tokens += gone[i];
      spans += gone[i] && (i == 0 || !gone[i - 1]);
    }
    CHECK(tokens == 19);  // 0.15 x 128 = 19.2
    CHECK(spans == 6);    // 19 / 3 = 6.3
    CHECK(!gone.front());
    CHECK(gone.back());
    first += static_cast<double>(std::find(gone.begin(), gone.end(), true) - gone.begin()) / 400;
    met.insert(gone);
    CHECK(gone == dropped_spans(128, {0.15, 3}, key, window));
  }
  CHECK(met.size() == 400);
  CHECK(first == doctest::Approx(109. / 6).epsilon(0.15));  // kept ones, cut at random into six
  CHECK(dropped_spans(128, {0.15, 3}, {7, 3}, 0) != dropped_spans(128, {0.15, 3}, key, 0));
  CHECK(dropped_spans(8, {0.01, 3}, key, 0) ==
        std::vector<bool>{false, false, false, false, false, false, false, true});
  CHECK(dropped_spans(4, {1, 1}, key, 0) == std::vector<bool>{false, true, true, true});
  contains(error_of([&] { dropped_spans(1, {}, key, 0); }), "in a window of 1");
}

TEST_CASE("an encoder-decoder's windows: sentinels in place of spans, the spans told after them") {
  const Folder folder;
  const PretrainSpec spec = small_run("t5", folder);
  const Tokenizer marked = tokenizer().with_sentinels(6);
  const CorpusWindows text(spec.train, marked, 20, Objective::span);
  const std::int64_t n = text.windows(1, 0);
  const Batch b = text.batch(1, 0, 0, n, {0.3, 2});
  REQUIRE(b.source != nullptr);
  CHECK(b.source->length.size() == static_cast<std::size_t>(n));
  CHECK(b.source->example == b.example);
  const auto is_sentinel = [&](std::int32_t id) { return id >= tokenizer().size(); };
  std::size_t at = 0, read = 0;
  std::set<std::vector<std::int32_t>> windows;  // put together again
  for (std::size_t w = 0; w < b.length.size(); ++w) {
    std::vector<std::vector<std::int32_t>> spans;
    for (int i = 0; i < b.length[w]; ++i, ++at) {
      CHECK(b.token[at] == (i == 0 ? 0 : b.token_label[at - 1]));
      const std::int32_t told = b.token_label[at];
      if (is_sentinel(told)) {
        CHECK(told == marked.id("<extra_id_" + std::to_string(spans.size()) + ">"));
        spans.emplace_back();
      } else if (i + 1 < b.length[w]) {
        spans.at(spans.size() - 1).push_back(told);
      } else {
        CHECK(told == 3);
      }
    }
    CHECK(spans.size() == 3);  // 6 of 20 tokens
    std::vector<std::int32_t> whole;
    std::size_t span = 0;
    for (int i = 0; i < b.source->length[w]; ++i, ++read) {
      const std::int32_t seen = b.source->token[read];
      if (is_sentinel(seen))
        whole.insert(whole.end(), spans[span].begin(), spans[span].end()), ++span;
      else
        whole.push_back(seen);
    }
    CHECK(span == spans.size());
    REQUIRE(whole.size() == 21);
    CHECK(whole.back() == 3);
    whole.pop_back();
    CHECK(std::search(text.stream().begin(), text.stream().end(), whole.begin(), whole.end()) !=
          text.stream().end());
    CHECK(std::count(whole.begin(), whole.end(), 3) == 0);  // what ends an answer is in none
    windows.insert(whole);
  }
  CHECK(windows.size() > 5);
  const Batch part = text.batch(1, 0, 2, 1, {0.3, 2});  // any part of it is the same
  const std::size_t before = static_cast<std::size_t>(b.length[0] + b.length[1]);
  CHECK(std::equal(part.token.begin(), part.token.end(),
                   b.token.begin() + static_cast<std::ptrdiff_t>(before)));
  contains(error_of([&] { text.batch(1, 0, 0, 1, {0.5, 1}); }), "the tokenizer's 6 sentinels");
  contains(error_of([&] { CorpusWindows(spec.train, tokenizer(), 20, Objective::span); }),
           "no [SEP], [PAD] or <extra_id_0>");
}

TEST_CASE("an objective goes with its architecture; another by name is an error") {
  const Arch both = text_arch(), encoder = arch_of(Stack::encoder),
             decoder = arch_of(Stack::decoder);
  CHECK(objective_of(both) == Objective::span);
  CHECK(objective_of(encoder) == Objective::masked);
  CHECK(objective_of(decoder, "causal") == Objective::causal);
  contains(
      error_of([&] { objective_of(both, "causal"); }),
      "objective 'causal': a model of family t5 is an encoder-decoder, which learns by 'span'");
  contains(error_of([&] { objective_of(encoder, "span"); }), "learns by 'masked'");
  contains(error_of([&] { objective_of(decoder, "spam"); }), "learns by 'causal'");
  const Folder folder;
  PretrainSpec spec = small_run("t5", folder);
  spec.objective = "masked";
  contains(error_of([&] { pretrain(spec); }), "learns by 'span'");
  spec.objective = "span", spec.span = 0.5;
  contains(error_of([&] { pretrain(spec); }), "spans of 0.5 tokens");
  spec.span = 3, spec.arch.vocab = tokenizer().size();
  contains(error_of([&] { pretrain(spec); }), "no room for sentinels");
}

TEST_CASE("a span run's model folder has the tokenizer with its sentinels, and is loaded again") {
  const Folder folder;
  const Quiet quiet;
  PretrainSpec spec = small_run("t5", folder);
  spec.steps = 3, spec.cooldown = 0;
  const PretrainResult r = pretrain(spec);
  const Tokenizer saved = Tokenizer::load(spec.out / "model");
  CHECK(saved.size() == tokenizer().size() + 6);
  CHECK(saved.id("<extra_id_0>") == saved.size() - 1);
  const auto model = load_model(spec.out / "model");
  Arch arch = spec.arch;
  CHECK(model->arch() == arch);
  CHECK(r.heldout_loss > 0);
  spec.tokenizer = spec.out / "model" / "tokenizer.json";  // one that has them stays as it is
  spec.out = folder / "again";
  pretrain(spec);
  CHECK(Tokenizer::load(spec.out / "model").size() == saved.size());
}
