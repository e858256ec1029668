// Tasks whose answer is a text: a word's definition, and a verse in another translation's words.
#include <fmt/format.h>

#include <map>
#include <set>
#include <tuple>

#include "experiments/data/sources.h"
#include "experiments/data/task_rows.h"

namespace graft::data {
namespace {

TaskData language_task(const std::string& name, const std::string& note) {
  TaskData task;
  task.name = name, task.kind = TaskData::Kind::language, task.pair = true;
  task.metric = "loss";
  task.note = note;
  return task;
}

// "word : bread | type : noun.food | kind of : baked goods"
std::string prompt_of(const WordNet& wn, const Synset& s) {
  std::string text = fmt::format("word : {} | type : {}", s.words[0], s.lexname());
  for (const auto& p : s.pointers)
    if (p.symbol == "@" || p.symbol == "@i") return text + " | kind of : " + wn[p.target].words[0];
  return text;
}

struct VersePair {
  const Verse *kjv, *web;
  Split split;
};

}  // namespace

TaskData make_defgen(const WordNet& wn) {
  TaskData task = language_task(
      "defgen",
      "a word, its lexicographer file and what it is a kind of -> its definition; no text of "
      "WordNet is in the pretraining corpus");
  std::vector<Row> rows;
  std::set<std::string> seen;  // one row for each definition
  for (const Synset& s : wn.synsets()) {
    if (s.definition.empty() || !seen.insert(normalised(s.definition)).second) continue;
    rows.push_back({prompt_of(wn, s), s.definition, -1, 0,
                    split_of(normalised(s.definition, kTemplateWords))});
  }
  finish(task, std::move(rows), {60000, 4000, 0, 0});
  return task;
}

TaskData make_kjv_web(const std::filesystem::path& packages) {
  using Reference = std::tuple<int, int, int>;
  const std::vector<Verse> kjv = read_kjv_verses(packages), web = read_web_verses(packages);
  std::map<Reference, const Verse*> found;
  for (const Verse& v : web) found[{v.book, v.chapter, v.verse}] = &v;
  std::vector<VersePair> pairs;
  for (const Verse& v : kjv)
    if (const auto at = found.find({v.book, v.chapter, v.verse}); at != found.end())
      pairs.push_back({&v, at->second, split_of(fmt::format("{}:{}", v.book, v.chapter))});
  const std::size_t alone = kjv.size() - pairs.size();
  // Formulas ("And the LORD spake unto Moses, saying,") stand in many chapters.
  std::map<std::string, std::set<Split>> places;
  for (const VersePair& p : pairs)
    for (const Verse* v : {p.kjv, p.web}) places[normalised(v->text)].insert(p.split);
  std::vector<Row> rows;
  int formulas = 0;
  for (const VersePair& p : pairs) {
    const bool shared = places.at(normalised(p.kjv->text)).size() > 1 ||
                        places.at(normalised(p.web->text)).size() > 1;
    formulas += shared;
    if (!shared) rows.push_back({p.kjv->text, p.web->text, -1, 0, p.split});
  }
  TaskData task = language_task(
      "kjv_web",
      fmt::format("a verse of the King James Bible -> the same verse of the World English Bible; "
                  "both books are in the pretraining corpus, so what is measured is the rewriting "
                  "of text that the base has seen. Left out: {} verses of the King James Bible "
                  "that the other numbers differently or lacks, {} that another split repeats",
                  alone, formulas));
  finish(task, std::move(rows), {25000, 2500, 0, 0});
  return task;
}

}  // namespace graft::data
