#include "experiments/runs/text_form.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "tensor/error.h"

namespace graft {
namespace {

constexpr float kSteps = 5;  // in one: scores are multiples of 0.2
constexpr int kMostTexts = 200;

// How many steps: halves to the even one, in f32, as tf.round does.
double steps(double score) { return std::nearbyint(kSteps * static_cast<float>(score)); }

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

bool is_letter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }

}  // namespace

bool fit(std::vector<int>& a, std::vector<int>& b, std::size_t most) {
  bool cut = false;
  while (a.size() + b.size() > most) {
    (a.size() >= b.size() ? a : b).pop_back();
    cut = true;
  }
  return cut;
}

bool fit_joined(std::vector<int>& a, std::vector<int>& b, std::size_t most) {
  if (a.size() + b.size() <= most) return false;
  const std::size_t room = most - std::min(b.size(), (most + 3) / 4);  // the prompt's
  if (a.size() > room) {
    const auto from = static_cast<std::ptrdiff_t>(room / 2);
    a.erase(a.begin() + from, a.begin() + from + static_cast<std::ptrdiff_t>(a.size() - room));
  }
  b.resize(std::min(b.size(), most - a.size()));
  return true;
}

std::string prefix_of(const TaskData& task) {
  return task.prefix.empty() ? lower(task.name) : task.prefix;
}

TextForm text_form(const TaskData& task) {
  std::vector<std::string> names = task.fields;
  if (names.empty())
    names =
        task.pair ? std::vector<std::string>{"first", "second"} : std::vector<std::string>{"text"};
  check(names.size() == (task.pair ? 2 : 1), "task {}: {} names of fields for {} texts", task.name,
        names.size(), task.pair ? 2 : 1);
  TextForm form;
  for (std::size_t i = 0; i < names.size(); ++i) form.parts.push_back({names[i] + ":", i == 1});
  std::stable_sort(form.parts.begin(), form.parts.end(),
                   [](const auto& x, const auto& y) { return x.before < y.before; });
  const std::string prefix = prefix_of(task);
  for (std::size_t i = 0; i < form.parts.size(); ++i)
    form.parts[i].before.insert(0, i == 0 ? prefix + " " : " ");
  return form;
}

std::vector<std::string> label_texts(const TaskData& task) {
  if (!task.words.empty()) return task.words;
  std::vector<std::string> all = task.labels;
  for (std::string& text : all)
    for (std::size_t i = 1; i + 1 < text.size(); ++i)
      if (text[i] == '.' && is_letter(text[i - 1]) && is_letter(text[i + 1])) text[i] = ' ';
  return all;
}

int ScoreTexts::nearest(float score) const {
  const double at = steps(score) - steps(values.front());
  return static_cast<int>(std::clamp(at, 0.0, static_cast<double>(values.size() - 1)));
}

ScoreTexts score_texts(const TaskData& task) {
  double least = INFINITY, greatest = -INFINITY;
  for (const Example& e : task.train) {
    least = std::min<double>(least, e.score);
    greatest = std::max<double>(greatest, e.score);
  }
  check(
      least <= greatest && (greatest - least) * kSteps < kMostTexts,
      "task {}: scores from {} to {}, written in steps of 0.2, are more than {} texts; scale them "
      "down for an encoder-decoder",
      task.name, least, greatest, kMostTexts);
  ScoreTexts out;
  for (double k = steps(least); k <= steps(greatest); ++k) {
    out.texts.push_back(fmt::format("{:.1f}", (k + 0.0) / kSteps));  // + 0.0: no "-0.0"
    out.values.push_back(static_cast<float>(k / kSteps));
  }
  return out;
}

std::vector<int> encode_source(const TaskData& task, const Example& e, const Tokenizer& tokenizer,
                               int end, std::size_t most, bool& cut) {
  std::vector<int> ids;
  if (task.kind == TaskData::Kind::language) {
    ids = tokenizer.encode(e.a);
    cut |= ids.size() + 1 > most;
    ids.resize(std::min(ids.size(), most - 1));
    ids.push_back(end);
    return ids;
  }
  // The parts' tokens are those of the whole text: each begins with a space before a word.
  const TextForm form = text_form(task);
  std::vector<std::vector<int>> before;
  std::vector<int> texts[2];
  std::size_t fixed = 1;
  for (const auto& part : form.parts) {
    const std::string& text = part.is_b ? e.b : e.a;
    if (part.is_b && text.empty()) continue;
    before.push_back(tokenizer.encode(part.before));
    fixed += before.back().size();
    texts[part.is_b] = tokenizer.encode(" " + text);
  }
  check(most > fixed, "task {}: {} tokens leave no room for text beside '{}'", task.name, most,
        form.parts.front().before);
  cut |= fit(texts[0], texts[1], most - fixed);
  std::size_t i = 0;
  for (const auto& part : form.parts) {
    if (part.is_b && e.b.empty()) continue;
    ids.insert(ids.end(), before[i].begin(), before[i].end());
    const std::vector<int>& text = texts[part.is_b];
    ids.insert(ids.end(), text.begin(), text.end());
    ++i;
  }
  ids.push_back(end);
  return ids;
}

}  // namespace graft
