// Tasks about one text: supersense, part of speech, topic and acceptability.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "experiments/data/task_rows.h"
#include "experiments/data/text_clean.h"

namespace graft::data {
namespace {

Split split_of_definition(const std::string& definition, Shares shares = {}) {
  return split_of(normalised(definition, kTemplateWords), shares);
}

// Words whose loss or exchange spoils a sentence; those of one group may often stand for each
// other.
constexpr std::array<std::string_view, 9> kFunctionWords = {
    "a an the this that these those",
    "of in on at by for from with to into about over under through",
    "and or but if because while",
    "is are was were be been am",
    "has have had do does did",
    "he she they we i you it",
    "him them us me",
    "his her their our my your its",
    "can could will would shall should may might must"};

int function_group(const std::string& word) {
  static const auto groups = [] {
    std::map<std::string, int, std::less<>> all;
    for (std::size_t g = 0; g < kFunctionWords.size(); ++g)
      for (const auto w : split(kFunctionWords[g], ' ')) all.emplace(w, static_cast<int>(g));
    return all;
  }();
  const auto found = groups.find(word);
  return found == groups.end() ? -1 : found->second;
}

bool is_plain(const std::string& word) {
  return std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

std::string swap_neighbours(std::vector<std::string> words, const std::string& key) {
  std::vector<int> places;
  // Capitals and punctuation would give the place away.
  for (std::size_t i = 0; i + 1 < words.size(); ++i)
    if (is_plain(words[i]) && is_plain(words[i + 1]) && words[i] != words[i + 1])
      places.push_back(static_cast<int>(i));
  if (places.empty()) return "";
  const int at = places[choose("swap", key) % places.size()];
  std::swap(words[at], words[at + 1]);
  return fmt::format("{}", fmt::join(words, " "));
}

// Drops one function word, or puts one of another group in its place.
std::string spoil_function_word(std::vector<std::string> words, const std::string& key, bool drop) {
  std::vector<int> places;
  for (std::size_t i = 0; i < words.size(); ++i)
    if (function_group(words[i]) >= 0) places.push_back(static_cast<int>(i));
  if (places.empty()) return "";
  const int at = places[choose("place", key) % places.size()];
  if (drop) {
    words.erase(words.begin() + at);
  } else {
    const std::size_t groups = kFunctionWords.size();
    const std::size_t own = function_group(words[at]);
    const std::size_t group = (own + 1 + choose("group", key) % (groups - 1)) % groups;
    const auto choices = split(kFunctionWords[group], ' ');
    words[at] = choices[choose("word", key) % choices.size()];
  }
  return fmt::format("{}", fmt::join(words, " "));
}

// Two in five by a swap of neighbours, the rest by a function word dropped or replaced.
std::string spoilt(const std::vector<std::string>& words, const std::string& key) {
  const std::uint32_t kind = choose("kind", key) % 10;
  std::string text = kind < 4 ? "" : spoil_function_word(words, key, kind < 7);
  return text.empty() ? swap_neighbours(words, key) : text;
}

std::vector<std::string> spaced_words(const std::string& text) {
  std::vector<std::string> words;
  for (const auto w : split(text, ' '))
    if (!w.empty()) words.emplace_back(w);
  return words;
}

// The definition without its leading "(law)" and with the domain's own words masked.
std::string masked(const Synset& s, const Synset& domain) {
  std::string text = s.definition;
  if (text.starts_with('(')) text.erase(0, std::min(text.find(')'), text.size() - 1) + 1);
  std::set<std::string> hidden;
  for (const std::string& name : domain.words)
    for (const std::string& word : plain_words(name)) hidden.insert({word, word + "s"});
  std::string out;
  for (const std::string& word : spaced_words(text)) {
    const auto parts = plain_words(word);
    const bool hide = std::any_of(parts.begin(), parts.end(),
                                  [&](const std::string& p) { return hidden.contains(p); });
    out += (out.empty() ? "" : " ") + (hide ? std::string("_") : word);
  }
  return out;
}

// The `most` commonest names, in alphabetical order.
std::vector<std::string> commonest(const std::map<std::string, int>& counts, std::size_t most) {
  std::vector<std::pair<int, std::string>> order;
  for (const auto& [name, count] : counts) order.emplace_back(-count, name);
  std::sort(order.begin(), order.end());
  std::vector<std::string> names;
  for (std::size_t i = 0; i < std::min(most, order.size()); ++i) names.push_back(order[i].second);
  std::sort(names.begin(), names.end());
  return names;
}

int index_of(const std::vector<std::string>& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  return found == names.end() ? -1 : static_cast<int>(found - names.begin());
}

}  // namespace

TaskData make_supersense(const WordNet& wn, bool balanced) {
  static const std::set<std::string_view> kTooSmall = {"noun.Tops", "noun.motive", "verb.weather"};
  TaskData task;
  task.name = balanced ? "supersense_bal" : "supersense";
  task.metric = "accuracy";
  task.note = "a definition of a noun or verb -> the lexicographer file it comes from";
  task.fields = {"definition"};
  std::set<std::string> labels;
  const auto wanted = [](const Synset& s) {
    return (s.pos == 'n' || s.pos == 'v') && !kTooSmall.contains(s.lexname());
  };
  for (const Synset& s : wn.synsets())
    if (wanted(s)) labels.emplace(s.lexname());
  task.labels.assign(labels.begin(), labels.end());
  std::vector<Row> rows;
  for (const Synset& s : wn.synsets())
    if (wanted(s))
      rows.push_back({s.definition, "", index_of(task.labels, s.lexname()), 0,
                      split_of_definition(s.definition)});
  finish(task, std::move(rows), balanced ? Caps{0, 0, 600, 60} : Caps{40000, 4000, 0, 0});
  return task;
}

TaskData make_pos(const WordNet& wn) {
  TaskData task;
  task.name = "pos";
  task.labels = {"noun", "verb", "adj", "adv"};
  task.metric = "accuracy";
  task.note = "a definition -> the part of speech of what it defines";
  task.fields = {"definition"};
  std::vector<Row> rows;
  for (const Synset& s : wn.synsets()) {
    const int label = static_cast<int>(std::string_view("nvar").find(s.pos));
    rows.push_back({s.definition, "", label, 0, split_of_definition(s.definition)});
  }
  finish(task, std::move(rows), {0, 0, 2600, 300});
  return task;
}

TaskData make_topic(const WordNet& wn) {
  TaskData task;
  task.name = "topic";
  task.metric = "accuracy";
  task.note = "a definition, the domain's name masked -> the topic domain of its synset";
  task.fields = {"definition"};
  std::map<std::string, int> counts;
  for (const Synset& s : wn.synsets())
    for (const auto& p : s.pointers)
      if (p.symbol == ";c") ++counts[wn[p.target].words[0]];
  task.labels = commonest(counts, 20);
  std::vector<Row> rows;
  for (const Synset& s : wn.synsets()) {
    for (const auto& p : s.pointers) {
      if (p.symbol != ";c") continue;
      const Synset& domain = wn[p.target];
      const int label = index_of(task.labels, domain.words[0]);
      const std::string text = masked(s, domain);
      if (label >= 0 && !text.empty())
        rows.push_back({text, "", label, 0, split_of_definition(text, {0.18, 0.30})});
    }
  }
  finish(task, std::move(rows), {});
  return task;
}

TaskData make_acceptability(const WordNet& wn) {
  TaskData task;
  task.name = "acceptability_wn";
  task.labels = {"unacceptable", "acceptable"};
  task.fields = {"sentence"};
  task.metric = "accuracy";
  task.note =
      "an example sentence, intact or with neighbours swapped or a function word dropped or "
      "replaced";
  std::vector<Row> rows;
  std::set<std::string> seen;  // a sentence appears in one version only
  for (const Synset& s : wn.synsets()) {
    for (const std::string& sentence : s.examples) {
      const std::string key = normalised(sentence);
      const auto words = spaced_words(sentence);
      if (words.size() < 4 || words.size() > 40 || !seen.insert(key).second) continue;
      // Only sentences that could be spoilt are kept intact, or short ones would give the label
      // away.
      const std::string broken = spoilt(words, key);
      if (broken.empty()) continue;
      const int label = choose("intact", key) & 1;
      const std::string intact = fmt::format("{}", fmt::join(words, " "));
      rows.push_back({label ? intact : broken, "", label, 0, split_of(key)});
    }
  }
  finish(task, std::move(rows), {15000, 1500, 0, 0});
  return task;
}

}  // namespace graft::data
