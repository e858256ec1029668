#include "experiments/runs/encoded.h"

#include <algorithm>
#include <numeric>

#include "experiments/runs/text_form.h"
#include "nn/models/folder.h"

namespace graft {
namespace {

struct Encoder {
  const Tokenizer& tokenizer;
  const Arch& arch;
  const EncodeSpec& spec;
  Goal goal;
  bool joined;
  std::vector<int> begin;  // before every text: an encoder's [CLS], LLaMA's <s>
  int sep;                 // the model's id, where its configuration has one

  EncodedExample operator()(const Example& e, int& shortened) const {
    std::vector<int> a = tokenizer.encode(e.a), b = tokenizer.encode(e.b);
    if (spec.marked) return marked(e, std::move(a), std::move(b), shortened);
    const bool two = !e.b.empty() || goal == Goal::language;
    const std::size_t extra = begin.size() + !joined + two + spec.cloze;
    check(spec.max_tokens > static_cast<int>(extra), "encode: {} tokens leave no room for text",
          spec.max_tokens);
    const std::size_t whole = b.size();
    shortened += (joined ? fit_joined : fit)(a, b, spec.max_tokens - extra);
    EncodedExample x;
    x.label = e.label, x.target = e.score, x.id = e.id;
    const auto put = [&x](const std::vector<int>& ids) {
      x.token.insert(x.token.end(), ids.begin(), ids.end());
    };
    put(begin);
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
std::string word_of(const TaskData& task, std::size_t label) {
  if (!task.words.empty()) return " " + task.words[label];
  const std::string& text = task.labels[label];
  const std::size_t dot = text.rfind('.');
  return " " + (dot == std::string::npos ? text : text.substr(dot + 1));
}

void check_distinct(const EncodedTask& task, const char* what) {
  for (std::size_t i = 0; i < task.labels.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      check(task.label_words[i] != task.label_words[j],
            "task {}: labels '{}' and '{}' are spoken for by one word: {}", task.name,
            task.labels[j], task.labels[i], what);
}

// Text to text: the answers first, then what each example's is.
struct Writer {
  const TaskData& data;
  const Tokenizer& tokenizer;
  int end;
  std::size_t most;
  ScoreTexts scores = {};

  std::vector<std::int32_t> answer(const std::string& text, int& shortened) const {
    std::vector<int> ids = tokenizer.encode(text);
    if (ids.size() + 1 > most)
      ids.resize(most), ++shortened;
    else
      ids.push_back(end);
    return {ids.begin(), ids.end()};
  }

  void answers(EncodedTask& out) {
    if (out.goal == Goal::regression) scores = score_texts(data), out.values = scores.values;
    for (const std::string& text :
         out.goal == Goal::regression ? scores.texts : label_texts(data)) {
      int cut = 0;
      out.label_words.push_back(answer(" " + text, cut));
      check(cut == 0, "task {}: the answer '{}' is longer than {} tokens", data.name, text, most);
    }
    check_distinct(out, "an encoder-decoder cannot tell them apart; give the task other words");
  }

  EncodedExample operator()(const EncodedTask& task, const Example& e, int& shortened) const {
    EncodedExample x;
    bool cut = false;
    const std::vector<int> source = encode_source(data, e, tokenizer, end, most, cut);
    x.source.assign(source.begin(), source.end());
    x.label = e.label, x.target = e.score, x.id = e.id;
    int cut_answer = 0;
    x.token = task.goal == Goal::language ? answer(e.b, cut_answer)
              : task.goal == Goal::regression
                  ? task.label_words.at(static_cast<std::size_t>(scores.nearest(e.score)))
                  // a row without a label has any answer: it is not looked at
                  : task.label_words.at(static_cast<std::size_t>(std::max(e.label, 0)));
    shortened += cut || cut_answer > 0;
    return x;
  }
};

void append(Batch& b, const std::vector<std::int32_t>& token, std::uint32_t id) {
  b.token.insert(b.token.end(), token.begin(), token.end());
  b.length.push_back(static_cast<int>(token.size()));
  b.example.push_back(id);
}

// What the decoder reads is its answer, one token late.
Batch text_batch(const EncodedTask& task, const std::vector<EncodedExample>& examples,
                 std::span<const std::int32_t> order) {
  Batch b;
  const auto source = std::make_shared<Batch>();
  for (const std::int32_t i : order) {
    const EncodedExample& e = examples[static_cast<std::size_t>(i)];
    append(*source, e.source, e.id);
    std::vector<std::int32_t> late{task.start};
    late.insert(late.end(), e.token.begin(), e.token.end() - 1);
    append(b, late, e.id);
    b.token_label.insert(b.token_label.end(), e.token.begin(), e.token.end());
    b.label.push_back(e.label);
    b.target.push_back(e.target);
  }
  b.source = source;
  return b;
}

// Whether the model can take the task on as `spec` says.
void check_spec(const TaskData& data, const Tokenizer& tokenizer, const Arch& arch,
                const EncodeSpec& spec) {
  check_fits(data.kind, data.name, arch);
  check(data.kind != TaskData::Kind::language || !spec.cloze,
        "task {}: a language task has no labels for head=cloze to read; leave head at linear",
        data.name);
  check(!spec.cloze || !arch.crosses(),
        "task {}: head=cloze reads a mask; an encoder-decoder answers in text", data.name);
  check(tokenizer.size() <= arch.vocab, "task {}: the tokenizer has {} tokens, the model only {}",
        data.name, tokenizer.size(), arch.vocab);
  check(spec.train_rows >= 0 && spec.dev_rows >= 0 && spec.test_rows >= 0,
        "task {}: rows {}, {}, {}; need at least 0, which means all", data.name, spec.train_rows,
        spec.dev_rows, spec.test_rows);
  check(spec.max_tokens >= 2, "encode: {} tokens leave no room for text", spec.max_tokens);
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
  out.fields = data.fields, out.words = data.words;
  out.columns = !data.columns.empty() ? data.columns
                : data.pair           ? std::vector<std::string>{"a", "b"}
                                      : std::vector<std::string>{"a"};
  check_spec(data, tokenizer, arch, spec);
  EncodeSpec fitted = spec;
  if (arch.positions > 0) fitted.max_tokens = std::min(spec.max_tokens, arch.positions);
  const int cls = arch.cls >= 0 ? arch.cls : tokenizer.cls();
  int sep = arch.sep >= 0 ? arch.sep : tokenizer.sep();
  if (sep < 0) sep = tokenizer.eos();
  check(spec.marked || (sep >= 0 && (arch.causal || cls >= 0) &&
                        (!spec.cloze || arch.causal || tokenizer.mask() >= 0)),
        "task {}: the tokenizer lacks a token to begin ({}), end ({}) or mask ({}) a text",
        data.name, cls, sep, tokenizer.mask());
  out.joined = data.joined && out.goal == Goal::language;
  const Tokenizer marks = spec.marked ? tokenizer_beside(arch, tokenizer) : tokenizer;
  std::vector<int> begin = text_beginning(arch, tokenizer);
  if (!arch.causal) begin = {cls};
  const Encoder encode{marks, arch, fitted, out.goal, out.joined, begin, sep};
  Writer write{data, tokenizer, sep, static_cast<std::size_t>(fitted.max_tokens)};
  if (arch.crosses()) {
    out.start = arch.start;
    out.prefix = prefix_of(data);
    write.answers(out);
  }
  const auto all = [&](const std::vector<Example>& from, std::vector<EncodedExample>& to,
                       int most) {
    for (std::size_t i = 0; i < limited(from, most); ++i)
      to.push_back(out.text() ? write(out, from[i], out.shortened)
                              : encode(from[i], out.shortened));
    check(!to.empty() || (spec.only_test && &to != &out.test), "task {}: a split has no rows",
          data.name);
  };
  all(data.train, out.train, spec.train_rows);
  all(data.dev, out.dev, spec.dev_rows);
  all(data.test, out.test, spec.test_rows);
  if (out.text()) return out;
  for (std::size_t i = 0; i < data.labels.size(); ++i) {
    const auto ids = tokenizer.encode(word_of(data, i));
    out.label_words.emplace_back(ids.begin(), ids.end());
  }
  if (spec.cloze) check_distinct(out, "head=cloze cannot tell them apart; use head=linear");
  return out;
}

namespace {

Batch plain_batch(const EncodedTask& task, const std::vector<EncodedExample>& examples,
                  const std::vector<std::int32_t>& order, std::size_t first, std::size_t count) {
  Batch b;
  for (std::size_t i = first; i < first + count; ++i) {
    const EncodedExample& e = examples[order[i]];
    append(b, e.token, e.id);
    b.token_type.insert(b.token_type.end(), e.type.begin(), e.type.end());
    b.label.push_back(e.label);
    if (task.goal == Goal::regression) b.target.push_back(e.target);
    if (task.goal != Goal::language) continue;
    for (std::size_t t = 0; t < e.token.size(); ++t) {  // each token is told by those before it
      const bool told = t + 1 < e.token.size() && static_cast<int>(t) + 1 >= e.prompt;
      b.token_label.push_back(told ? e.token[t + 1] : -1);
    }
  }
  return b;
}

}  // namespace

Batch make_batch(const EncodedTask& task, const std::vector<EncodedExample>& examples,
                 const std::vector<std::int32_t>& order, std::size_t first, std::size_t count) {
  Batch b = task.text() ? text_batch(task, examples, std::span(order).subspan(first, count))
                        : plain_batch(task, examples, order, first, count);
  if (task.index < 0) return b;
  b.task.assign(count, task.index);
  if (b.source) {
    auto read = std::make_shared<Batch>(*b.source);
    read->task = b.task;
    b.source = std::move(read);
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
