#include "experiments/runs/prompt_words.h"

#include "experiments/runs/text_form.h"
#include "peft/spec.h"

namespace graft {
namespace {

std::string ids_of(const std::string& text, const Tokenizer& tokenizer, char between) {
  const std::vector<int> ids = tokenizer.encode(text);
  check(!ids.empty(), "text=: '{}' has no tokens", text);
  return fmt::format("{}", fmt::join(ids, std::string(1, between)));
}

std::string labels_of(const TaskData& task, const Tokenizer& tokenizer) {
  check(!task.labels.empty(), "init=labels: task {} has no labels", task.name);
  std::string tokens;
  for (const std::string& text : label_texts(task))
    tokens += (tokens.empty() ? "" : "-") + ids_of(" " + text, tokenizer, '.');
  return tokens;
}

}  // namespace

std::string with_tokens(const std::string& spec, const Tokenizer& tokenizer, const TaskData& task) {
  std::string out;
  bool changed = false;
  for (Options& o : parse_spec(spec)) {
    std::string one = o.to_string();
    if (o.has("text")) {
      check(!o.has("tokens"), "{}: text= and tokens=; need one of them", o.method());
      const std::string text = o.text("text", ""), given = "text=" + text;
      one.replace(one.rfind(given), given.size(), "tokens=" + ids_of(text, tokenizer, '-'));
    } else if (o.text("init", "") == "labels" && !o.has("tokens")) {
      one += ",tokens=" + labels_of(task, tokenizer);
    }
    changed |= one != o.to_string();
    out += (out.empty() ? "" : "|") + one;
  }
  return changed ? out : spec;
}

}  // namespace graft
