// The list of tasks and what they share.
#include "experiments/data/tasks.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>

#include "experiments/data/instructions.h"
#include "experiments/data/md5.h"
#include "experiments/data/task_rows.h"
#include "experiments/data/text_clean.h"
#include "tensor/error.h"

namespace graft {
namespace data {
namespace {

std::uint32_t md5_head(const std::string& text) {
  return static_cast<std::uint32_t>(md5_unit(text) * 4294967296.0);
}

// Cuts rows that stand in hash order. A cap on each class leaves the frequent classes' rows in
// front and the rare ones' all along; the nth rows of all classes are then put together, so that
// the first n rows are balanced too, whatever n.
void cut(std::vector<Example>& rows, int most, int per_class, std::size_t classes) {
  if (per_class > 0) {
    std::vector<int> taken(classes, 0);
    std::vector<std::pair<int, Example>> ranked;
    for (Example& e : rows)
      if (const int rank = taken[e.label]++; rank < per_class)
        ranked.emplace_back(rank, std::move(e));
    std::stable_sort(ranked.begin(), ranked.end(),
                     [](const auto& x, const auto& y) { return x.first < y.first; });
    rows.clear();
    for (auto& [rank, e] : ranked) rows.push_back(std::move(e));
  }
  if (most > 0 && static_cast<int>(rows.size()) > most) rows.resize(most);
}

}  // namespace

Split split_of(std::string_view key, Shares shares) {
  const double x = md5_unit("split\x1f" + std::string(key));
  return x < shares.test ? Split::test : x < shares.dev ? Split::dev : Split::train;
}

std::uint32_t choose(std::string_view purpose, std::string_view text) {
  return md5_head(std::string(purpose) + '\x1f' + std::string(text));
}

std::string normalised(std::string_view text, int most) {
  std::string out;
  int count = 0;
  for (const std::string& word : plain_words(text)) {
    if (most > 0 && count == most) break;
    if (count++ > 0) out.push_back(' ');
    out += word;
  }
  return out;
}

std::string described(const Synset& s) { return s.words[0] + " : " + s.definition; }

std::vector<Above> ancestors(const WordNet& wn, int index, bool instances) {
  std::vector<Above> found;
  std::set<int> seen{index};
  const auto visit = [&](int synset, int distance) {
    for (const auto& p : wn[synset].pointers)
      if ((p.symbol == "@" || (instances && p.symbol == "@i")) && seen.insert(p.target).second)
        found.push_back({p.target, distance + 1});
  };
  visit(index, 0);
  for (std::size_t i = 0; i < found.size(); ++i) visit(found[i].synset, found[i].distance);
  return found;
}

void finish(TaskData& task, std::vector<Row> rows, Caps caps) {
  struct Seen {
    const Row* row;
    bool conflict;
  };
  std::unordered_map<std::string, Seen> texts;
  for (const Row& row : rows) {
    const auto [at, fresh] = texts.try_emplace(row.a + '\t' + row.b, Seen{&row, false});
    const Row& first = *at->second.row;
    if (!fresh &&
        (first.label != row.label || first.score != row.score || first.split != row.split))
      at->second.conflict = true;
  }
  std::map<std::pair<std::uint32_t, std::string>, const Row*> ordered;
  for (const auto& [text, seen] : texts)
    if (!seen.conflict)
      ordered[{md5_head("order\x1f" + task.name + '\x1f' + text), text}] = seen.row;
  std::uint32_t last = 0;
  for (const auto& [place, row] : ordered) {
    // Two texts may share the first 32 bits of their md5; ids must differ.
    const std::uint32_t id = last = std::max(place.first, last + 1);
    auto& split = row->split == Split::test  ? task.test
                  : row->split == Split::dev ? task.dev
                                             : task.train;
    split.push_back({row->a, row->b, row->label, row->score, id});
  }
  cut(task.train, caps.train, caps.train_per_class, task.labels.size());
  for (auto* split : {&task.dev, &task.test})
    cut(*split, caps.held, caps.held_per_class, task.labels.size());
}

}  // namespace data

namespace {

using Kind = TaskData::Kind;

struct Maker {
  std::string name;
  Kind kind;
  std::function<TaskData(const WordNet&, const std::filesystem::path& packages)> make;
};

const std::vector<Maker>& makers() {
  const auto from_wordnet = [](TaskData (*make)(const WordNet&)) {
    return [make](const WordNet& wn, const std::filesystem::path&) { return make(wn); };
  };
  const auto from_tasks = [](const std::string& name) {
    return [name](const WordNet& wn, const std::filesystem::path& packages) {
      return instruction_task(
          make_instructions([&](const std::string& t) { return build_task(t, wn, packages); }),
          name);
    };
  };
  static const std::vector<Maker> table = {
      {"supersense", Kind::classification,
       from_wordnet([](const WordNet& wn) { return data::make_supersense(wn, false); })},
      {"supersense_bal", Kind::classification,
       from_wordnet([](const WordNet& wn) { return data::make_supersense(wn, true); })},
      {"pos", Kind::classification, from_wordnet(data::make_pos)},
      {"topic", Kind::classification, from_wordnet(data::make_topic)},
      {"hyper2", Kind::classification, from_wordnet(data::make_hyper2)},
      {"hyper3", Kind::classification, from_wordnet(data::make_hyper3)},
      {"acceptability_wn", Kind::classification, from_wordnet(data::make_acceptability)},
      {"antsyn", Kind::classification, from_wordnet(data::make_antsyn)},
      {"similarity_wn", Kind::regression, from_wordnet(data::make_similarity)},
      {"defgen", Kind::language, from_wordnet(data::make_defgen)},
      {"kjv_web", Kind::language,
       [](const WordNet&, const std::filesystem::path& packages) {
         return data::make_kjv_web(packages);
       }},
      {"instructions", Kind::language, from_tasks("instructions")},
      {"instructions_template", Kind::language, from_tasks("instructions_template")},
      {"instructions_task", Kind::language, from_tasks("instructions_task")},
  };
  return table;
}

const Maker& maker_of(const std::string& name) {
  for (const Maker& m : makers())
    if (m.name == name) return m;
  fail("task: unknown name '{}'; known are {}", name, fmt::join(task_names(), ", "));
}

}  // namespace

const std::vector<std::string>& task_names() {
  static const auto names = [] {
    std::vector<std::string> all;
    for (const Maker& m : makers()) all.push_back(m.name);
    return all;
  }();
  return names;
}

TaskData build_task(const std::string& name, const WordNet& wn,
                    const std::filesystem::path& packages) {
  return maker_of(name).make(wn, packages);
}

TaskData::Kind kind_of_task(const std::string& name) { return maker_of(name).kind; }

void sort_by_hash(std::vector<Example>& rows) {
  std::vector<std::pair<std::string, std::size_t>> order;
  for (std::size_t i = 0; i < rows.size(); ++i)
    order.emplace_back(md5_hex(rows[i].a + '\x1f' + rows[i].b), i);
  std::sort(order.begin(), order.end());
  std::vector<Example> mixed;
  for (const auto& [hash, i] : order) mixed.push_back(std::move(rows[i]));
  rows = std::move(mixed);
}

}  // namespace graft
