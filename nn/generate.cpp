#include "nn/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "nn/decoding.h"

namespace graft {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

bool contains(const std::vector<std::int32_t>& all, std::int32_t one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

void check_prompts(const Model& model, const std::vector<std::vector<std::int32_t>>& prompts) {
  const Arch& a = model.arch();
  check(a.causal, "generate: a masked model ({}); need a decoder", a.family);
  check(!a.crosses() || (0 <= a.start && a.start < a.vocab),
        "generate: token {} to begin answers with; need one of 0..{}", a.start, a.vocab - 1);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    const auto& prompt = prompts[i];
    check(!prompt.empty(), "generate: prompt {} is empty; give it the token that texts begin with",
          i);
    check(!a.learned_positions || static_cast<int>(prompt.size()) <= a.positions,
          "generate: prompt {} has {} tokens; the model has {} positions", i, prompt.size(),
          a.positions);
    for (std::int32_t token : prompt)
      check(0 <= token && token < a.vocab, "generate: prompt {} has token {}; the model has 0..{}",
            i, token, a.vocab - 1);
  }
}

// The tokens that would complete an n-gram which `all` has already.
std::set<std::int32_t> repeats(const std::vector<std::int32_t>& all, int n) {
  std::set<std::int32_t> banned;
  const std::size_t head = static_cast<std::size_t>(n - 1);
  if (all.size() < head) return banned;
  const auto last = all.end() - static_cast<std::ptrdiff_t>(head);
  for (std::size_t i = 0; i + head < all.size(); ++i)
    if (std::equal(last, all.end(), all.begin() + static_cast<std::ptrdiff_t>(i)))
      banned.insert(all[i + head]);
  return banned;
}

void append(Batch& batch, const std::vector<std::int32_t>& tokens, int name) {
  batch.token.insert(batch.token.end(), tokens.begin(), tokens.end());
  batch.length.push_back(static_cast<int>(tokens.size()));
  batch.example.push_back(static_cast<std::uint32_t>(name));
}

struct Going {
  int name;
  std::vector<std::int32_t> all;  // prompt and answer
};

}  // namespace

void GenerateSpec::check_fits(const Arch& a) const {
  check(max_tokens >= 1 && min_tokens >= 0 && min_tokens <= max_tokens,
        "generate: {} to {} new tokens; need 0 <= min <= max, max >= 1", min_tokens, max_tokens);
  check(no_repeat_ngram >= 0, "generate: no_repeat_ngram {}; need 0 or more", no_repeat_ngram);
  check(repetition_penalty > 0, "generate: repetition penalty {}; need more than 0",
        repetition_penalty);
  check(temperature > 0 && std::isfinite(temperature),
        "generate: temperature {}; need more than 0 (greedy is without sampling)", temperature);
  check(top_k >= 0 && top_p > 0 && top_p <= 1, "generate: top-k {}, top-p {}; need >= 0, in (0, 1]",
        top_k, top_p);
  check(beams >= 1, "generate: {} beams; need 1 or more", beams);
  check(beams == 1 || !sample, "generate: beam search does not sample; give one or the other");
  check(sample || (temperature == 1 && top_k == 0 && top_p == 1),
        "generate: temperature, top-k and top-p mean something in sampling only");
  check(beams == 1 || a.vocab >= beams * std::max<int>(2, 1 + static_cast<int>(stop.size())),
        "generate: {} beams over a vocabulary of {}", beams, a.vocab);
  for (std::int32_t token : stop)
    check(0 <= token && token < a.vocab, "generate: stop token {}; the model has 0..{}", token,
          a.vocab - 1);
}

// Rows that a sequence may come to have in the cache; the last new token is never read.
static int expected_rows(const Model& model, const std::vector<std::vector<std::int32_t>>& prompts,
                         int max_tokens) {
  std::size_t longest = 1;
  if (!model.encoder)
    for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const std::int64_t rows = static_cast<std::int64_t>(longest) + max_tokens - 1;
  const bool bounded = model.arch().learned_positions;
  return static_cast<int>(std::min<std::int64_t>(rows, bounded ? model.arch().positions : 1 << 30));
}

Reader::Reader(const Model& model, const std::vector<std::vector<std::int32_t>>& prompts,
               const GenerateSpec& spec)
    : model_(model),
      prompts_(prompts),
      adapter_(spec.adapter),
      cache_(model.arch().layers, static_cast<int>(prompts.size()),
             expected_rows(model, prompts, spec.max_tokens)) {
  check(adapter_.empty() || adapter_.size() == prompts.size(),
        "generate: adapters for {} of {} prompts", adapter_.size(), prompts.size());
}

std::vector<std::int32_t> Reader::beginning(std::size_t i) const {
  if (model_.encoder) return {model_.arch().start};
  return prompts_[i];
}

std::vector<std::vector<double>> Reader::read(const std::vector<std::vector<std::int32_t>>& news,
                                              const std::vector<int>& names) {
  NoRecord off;
  Batch batch;
  std::vector<std::int32_t> last;
  for (std::size_t i = 0; i < news.size(); ++i) {
    append(batch, news[i], names[i]);
    if (!adapter_.empty()) batch.adapter.push_back(adapter_[static_cast<std::size_t>(names[i])]);
  }
  if (model_.encoder && cache_.empty()) {
    auto source = std::make_shared<Batch>();
    for (const int name : names) append(*source, prompts_[static_cast<std::size_t>(name)], name);
    batch.source = std::move(source);
  }
  Ctx ctx;
  ctx.cache = &cache_;
  const Sequence s = model_.forward(batch, ctx);
  std::int32_t row = -1;
  for (int length : s.length) last.push_back(row += length);
  const Tensor logits = model_.lm_logits(s, last, ctx);
  std::vector<std::vector<double>> scores;
  const std::int64_t vocab = logits.dim(1);
  const std::vector<double> all = logits.value().to_vector();
  for (std::size_t i = 0; i < news.size(); ++i)
    scores.emplace_back(all.begin() + static_cast<std::ptrdiff_t>(i) * vocab,
                        all.begin() + static_cast<std::ptrdiff_t>(i + 1) * vocab);
  for (const auto& one : scores)
    for (double x : one) check(!std::isnan(x), "generate: the model's scores are NaN");
  return scores;
}

int Reader::room(int i) const {
  if (!model_.arch().learned_positions) return std::numeric_limits<int>::max();
  return model_.arch().positions - cache_.position().at(static_cast<std::size_t>(i));
}

std::vector<double> log_softmax(const std::vector<double>& scores) {
  const double max = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double x : scores) sum += std::exp(x - max);
  std::vector<double> out(scores);
  for (double& x : out) x -= max + std::log(sum);
  return out;
}

void restrict_next(std::vector<double>& scores, const std::vector<std::int32_t>& all, int made,
                   const GenerateSpec& spec) {
  if (spec.repetition_penalty != 1)
    for (std::int32_t token : std::set(all.begin(), all.end())) {
      double& x = scores[static_cast<std::size_t>(token)];
      x = x < 0 ? x * spec.repetition_penalty : x / spec.repetition_penalty;
    }
  if (spec.no_repeat_ngram > 0)
    for (std::int32_t token : repeats(all, spec.no_repeat_ngram))
      scores[static_cast<std::size_t>(token)] = kNever;
  if (made < spec.min_tokens)
    for (std::int32_t token : spec.stop) scores[static_cast<std::size_t>(token)] = kNever;
}

std::int32_t draw(std::vector<double> scores, const GenerateSpec& spec, double u) {
  for (double& x : scores) x /= spec.temperature;
  std::vector<std::int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return scores[static_cast<std::size_t>(a)] > scores[static_cast<std::size_t>(b)];
  });
  const auto score = [&](std::size_t i) { return scores[static_cast<std::size_t>(order[i])]; };
  check(score(0) > kNever, "generate: every token is banned; lower no_repeat_ngram");
  std::size_t among = order.size();
  if (spec.top_k > 0) among = std::min(among, static_cast<std::size_t>(spec.top_k));
  while (among > 1 && score(among - 1) == kNever) --among;
  std::vector<double> weight;
  double total = 0;
  for (std::size_t i = 0; i < among; ++i) {
    weight.push_back(std::exp(score(i) - score(0)));
    total += weight.back();
  }
  double held = 0;  // by the nucleus: Holtzman et al. 2020 (1904.09751), section 3.1
  std::size_t nucleus = 0;
  while (nucleus < among && (nucleus == 0 || held < spec.top_p * total)) held += weight[nucleus++];
  double target = u * held;
  for (std::size_t i = 0; i < nucleus; ++i)
    if ((target -= weight[i]) < 0) return order[i];
  return order[nucleus - 1];
}

std::vector<Generated> generate(const Model& model,
                                const std::vector<std::vector<std::int32_t>>& prompts,
                                const GenerateSpec& spec, const OnToken& on_token) {
  spec.check_fits(model.arch());
  check_prompts(model, prompts);
  if (prompts.empty()) return {};
  if (spec.beams > 1) return beam_search(model, prompts, spec);
  std::vector<Generated> out(prompts.size());
  std::vector<Going> going;
  std::vector<std::vector<std::int32_t>> news;
  Reader reader(model, prompts, spec);
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    news.push_back(reader.beginning(i));
    going.push_back({static_cast<int>(i), news[i]});
  }
  while (!going.empty()) {
    std::vector<int> names;
    for (const Going& g : going) names.push_back(g.name);
    const auto scores = reader.read(news, names);
    std::vector<Going> left;
    std::vector<int> kept;
    news.clear();
    for (std::size_t i = 0; i < going.size(); ++i) {
      Going& g = going[i];
      Generated& answer = out[static_cast<std::size_t>(g.name)];
      const int made = static_cast<int>(answer.tokens.size());
      std::vector<double> next = scores[i];
      restrict_next(next, g.all, made, spec);
      std::int32_t token;
      if (spec.sample) {
        const Key key{spec.seed, static_cast<std::uint32_t>(made)};
        token = draw(next, spec,
                     uniform(key, stream_id("generate"), static_cast<std::uint64_t>(g.name)));
      } else {
        token =
            static_cast<std::int32_t>(std::max_element(next.begin(), next.end()) - next.begin());
        check(next[static_cast<std::size_t>(token)] > kNever,
              "generate: every token is banned; lower no_repeat_ngram");
      }
      answer.tokens.push_back(token);
      answer.score += log_softmax(scores[i])[static_cast<std::size_t>(token)];
      if (on_token) on_token(g.name, token);
      if (contains(spec.stop, token)) {
        answer.end = Generated::End::stop;
      } else if (made + 1 == spec.max_tokens) {
        answer.end = Generated::End::count;
      } else if (reader.room(static_cast<int>(i)) < 1) {
        answer.end = Generated::End::positions;
      } else {
        g.all.push_back(token);
        news.push_back({token});
        kept.push_back(static_cast<int>(i));
        left.push_back(std::move(g));
      }
    }
    if (left.size() < going.size() && !left.empty()) reader.select(kept);
    going = std::move(left);
  }
  return out;
}

}  // namespace graft
