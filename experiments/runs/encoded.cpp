#include "experiments/runs/encoded.h"

#include <algorithm>
#include <numeric>

#include "nn/models/folder.h"

namespace graft {
namespace {

// Cuts the longer of two parts until both fit.
bool fit(std::vector<int>& a, std::vector<int>& b, std::size_t most) {
  bool cut = false;
  while (a.size() + b.size() > most) {
    (a.size() >= b.size() ? a : b).pop_back();
    cut = true;
  }
  return cut;
}

struct Encoder {
  const Tokenizer& tokenizer;
  const Arch& arch;
  const EncodeSpec& spec;
  Goal goal;
  bool joined;
  int cls, sep;  // the model's ids of these, where its configuration has them

  EncodedExample operator()(const Example& e, int& shortened) const {
    std::vector<int> a = tokenizer.encode(e.a), b = tokenizer.encode(e.b);
    if (spec.marked) return marked(e, std::move(a), std::move(b), shortened);
    const bool two = !e.b.empty() || goal == Goal::language;
    const std::size_t extra = (arch.causal ? 0 : 1) + 1 + two + spec.cloze;
    check(spec.max_tokens > static_cast<int>(extra), "encode: {} tokens leave no room for text",
          spec.max_tokens);
    const std::size_t whole = b.size();
    shortened += fit(a, b, spec.max_tokens - extra);
    EncodedExample x;
    x.label = e.label, x.target = e.score, x.id = e.id;
    const auto put = [&x](const std::vector<int>& ids) {
      x.token.insert(x.token.end(), ids.begin(), ids.end());
    };
    if (!arch.causal) x.token.push_back(cls);
    put(a);
    if (spec.cloze && !arch.causal) x.token.push_back(tokenizer.mask());
    if (!joined) x.token.push_back(sep);
    x.prompt = static_cast<int>(x.token.size());
    if (two) {
      put(b);
      if (goal != Goal::language || b.size() == whole) x.token.push_back(sep);
    }
    return x;
  }

  EncodedExample marked(const Example& e, std::vector<int> a, std::vector<int> b,
                        int& shortened) const {
    const bool two = !e.b.empty();
    const std::size_t around = (two ? tokenizer.mark({}, {}) : tokenizer.mark({})).ids.size();
    check(spec.max_tokens > static_cast<int>(around), "encode: {} tokens leave no room for text",
          spec.max_tokens);
    shortened += fit(a, b, spec.max_tokens - around);
    MarkedIds marks = two ? tokenizer.mark(a, b) : tokenizer.mark(a);
    check(!marks.ids.empty(), "encode: a text of the task has no tokens: '{}'", e.a);
    EncodedExample x;
    x.label = e.label, x.target = e.score, x.id = e.id;
    x.token = std::move(marks.ids);
    if (arch.token_types > 1) x.type = std::move(marks.types);
    return x;
  }
};

template <class T>
std::size_t limited(const std::vector<T>& rows, int most) {
  return most > 0 ? std::min<std::size_t>(rows.size(), most) : rows.size();
}

// "noun.food" is spoken for by " food".
std::string word_of(const std::string& label) {
  const std::size_t dot = label.rfind('.');
  return " " + (dot == std::string::npos ? label : label.substr(dot + 1));
}

}  // namespace

EncodeSpec encode_for(const std::string& head, EncodeSpec spec) {
  spec.cloze = head == "cloze", spec.marked = head == "family";
  return spec;
}

void check_fits(TaskData::Kind kind, const std::string& task, const Arch& arch) {
  check(kind != TaskData::Kind::language || arch.causal,
        "task {}: a language task is told token by token and needs a causal model; this one ({}) "
        "is masked; give a decoder",
        task, arch.family);
}

EncodedTask encode_task(const TaskData& data, const Tokenizer& tokenizer, const Arch& arch,
                        const EncodeSpec& spec) {
  EncodedTask out;
  out.name = data.name;
  out.labels = data.labels;
  out.metric = data.metric;
  out.goal = data.kind == TaskData::Kind::classification ? Goal::classification
             : data.kind == TaskData::Kind::regression   ? Goal::regression
                                                         : Goal::language;
  check_fits(data.kind, data.name, arch);
  check(out.goal != Goal::language || !spec.cloze,
        "task {}: a language task has no labels for head=cloze to read; leave head at linear",
        data.name);
  check(tokenizer.size() <= arch.vocab, "task {}: the tokenizer has {} tokens, the model only {}",
        data.name, tokenizer.size(), arch.vocab);
  check(spec.train_rows >= 0 && spec.dev_rows >= 0 && spec.test_rows >= 0,
        "task {}: rows {}, {}, {}; need at least 0, which means all", data.name, spec.train_rows,
        spec.dev_rows, spec.test_rows);
  EncodeSpec fitted = spec;
  fitted.max_tokens = std::min(spec.max_tokens, arch.positions);
  const int cls = arch.cls >= 0 ? arch.cls : tokenizer.cls();
  int sep = arch.sep >= 0 ? arch.sep : tokenizer.sep();
  if (sep < 0) sep = tokenizer.eos();
  check(spec.marked || (sep >= 0 && (arch.causal || cls >= 0) &&
                        (!spec.cloze || arch.causal || tokenizer.mask() >= 0)),
        "task {}: the tokenizer lacks a token to begin ({}), end ({}) or mask ({}) a text",
        data.name, cls, sep, tokenizer.mask());
  out.joined = data.joined && out.goal == Goal::language;
  const Tokenizer marks = spec.marked ? tokenizer_beside(arch, tokenizer) : tokenizer;
  const Encoder encode{marks, arch, fitted, out.goal, out.joined, cls, sep};
  const auto all = [&](const std::vector<Example>& from, std::vector<EncodedExample>& to,
                       int most) {
    for (std::size_t i = 0; i < limited(from, most); ++i)
      to.push_back(encode(from[i], out.shortened));
    check(!to.empty(), "task {}: a split has no rows", data.name);
  };
  all(data.train, out.train, spec.train_rows);
  all(data.dev, out.dev, spec.dev_rows);
  all(data.test, out.test, spec.test_rows);
  for (const std::string& label : data.labels) {
    const auto ids = tokenizer.encode(word_of(label));
    out.label_words.emplace_back(ids.begin(), ids.end());
  }
  for (std::size_t i = 0; spec.cloze && i < out.labels.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      check(out.label_words[i] != out.label_words[j],
            "task {}: labels '{}' and '{}' are spoken for by one word: head=cloze cannot tell them "
            "apart; use head=linear",
            data.name, out.labels[j], out.labels[i]);
  return out;
}

Batch make_batch(const EncodedTask& task, const std::vector<EncodedExample>& examples,
                 const std::vector<std::int32_t>& order, std::size_t first, std::size_t count) {
  Batch b;
  for (std::size_t i = first; i < first + count; ++i) {
    const EncodedExample& e = examples[order[i]];
    b.token.insert(b.token.end(), e.token.begin(), e.token.end());
    b.token_type.insert(b.token_type.end(), e.type.begin(), e.type.end());
    b.length.push_back(static_cast<int>(e.token.size()));
    b.example.push_back(e.id);
    b.label.push_back(e.label);
    b.target.push_back(e.target);
    if (task.goal != Goal::language) continue;
    for (std::size_t t = 0; t < e.token.size(); ++t) {  // each token is told by those before it
      const bool told = t + 1 < e.token.size() && static_cast<int>(t) + 1 >= e.prompt;
      b.token_label.push_back(told ? e.token[t + 1] : -1);
    }
  }
  return b;
}

std::vector<std::int32_t> shuffled(std::size_t n, std::uint32_t seed, int epoch) {
  std::vector<std::int32_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  const Key key{seed, static_cast<std::uint32_t>(epoch)};
  for (std::size_t i = n; i > 1; --i)
    std::swap(order[i - 1],
              order[static_cast<std::size_t>(uniform(key, stream_id("example order"), i) * i)]);
  return order;
}

}  // namespace graft
