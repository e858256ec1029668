// The tasks made from WordNet: nothing shared between splits, the same bytes everywhere.
#include <doctest/doctest.h>

#include <fmt/format.h>
#include <cmath>

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "experiments/data/baselines.h"
#include "experiments/data/built_tasks.h"
#include "experiments/data/md5.h"
#include "experiments/data/task_rows.h"
#include "experiments/data/tasks.h"
#include "experiments/data/wordnet.h"
#include "tensor/error.h"

using namespace graft;
namespace fs = std::filesystem;

namespace {

// WordNet where this machine has it; read once.
const WordNet* wordnet() {
  static const auto wn = []() -> std::unique_ptr<WordNet> {
    const fs::path dir = find_wordnet(default_data_dir() / "packages");
    if (dir.empty()) return nullptr;
    return std::make_unique<WordNet>(WordNet::load(dir));
  }();
  if (!wn) MESSAGE("SKIPPED: WordNet is not here; experiments/data/fetch.sh unpacks it");
  return wn.get();
}

// kjv_web is missing where the Bibles are. Instructions have tests of their own.
const std::map<std::string, TaskData>& all_tasks(const WordNet& wn) {
  static const auto tasks = [&wn] {
    std::map<std::string, TaskData> all;
    for (const std::string& name : task_names()) {
      if (name.starts_with("instructions")) continue;
      if (name == "kjv_web" && !fs::exists(default_data_dir() / "packages/usr/lib/bible.data"))
        MESSAGE("SKIPPED: the Bibles are not here; experiments/data/fetch.sh unpacks them");
      else
        all[name] = build_task(name, wn);
    }
    return all;
  }();
  return tasks;
}

template <class F>
void for_each_split(const TaskData& task, const F& f) {
  for (const auto* split : {&task.train, &task.dev, &task.test}) f(*split);
}

// How many keys occur in two of the three splits. `keys_of` fills a set from an example.
template <class F>
int shared_keys(const TaskData& task, const F& keys_of) {
  std::map<std::string, std::set<const void*>> seen;
  for_each_split(task, [&](const std::vector<Example>& split) {
    for (const Example& e : split)
      for (const std::string& key : keys_of(e)) seen[key].insert(&split);
  });
  int shared = 0;
  for (const auto& [key, splits] : seen) shared += splits.size() > 1;
  return shared;
}

using Keys = std::vector<std::string>;

}  // namespace

TEST_CASE("an unknown task is refused with the known names") {
  std::string text;
  try {
    build_task("colo", WordNet());
  } catch (const Error& e) {
    text = e.what();
  }
  CHECK(text.find("'colo'") != std::string::npos);
  for (const std::string& name : task_names()) CHECK(text.find(name) != std::string::npos);
}

TEST_CASE("the tasks are those of kTasksVersion") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  static const std::map<std::string, std::uint64_t> kHashes = {
      {"supersense", 0xc335a5d0971d0a38},
      {"supersense_bal", 0x7c245ec587077be4},
      {"pos", 0x53c0257cad8f72a4},
      {"topic", 0x0e0fcf6560916777},
      {"hyper2", 0x26cb934b014c5e72},
      {"hyper3", 0xe51a0416bb9ad952},
      {"acceptability_wn", 0xdb646248fc364dcc},
      {"antsyn", 0xae52cfbb99f1627d},
      {"similarity_wn", 0xdff53ba4be51c67b},
      {"defgen", 0x30f531eb3efe0736},
      {"kjv_web", 0xaccc3ea52043fa40}};
  for (const auto& entry : all_tasks(*wn)) {
    INFO("where build_task() was meant to change, raise kTasksVersion and put the new hash here");
    CAPTURE(entry.first);
    CHECK(hash_of(entry.second) == kHashes.at(entry.first));
  }
}

TEST_CASE("WordNet 3.0 is read whole") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  std::map<char, int> count;
  int examples = 0, undefined = 0;
  for (const Synset& s : wn->synsets()) {
    ++count[s.pos];
    examples += static_cast<int>(s.examples.size());
    undefined += s.definition.empty();
  }
  CHECK(undefined == 0);
  CHECK(count == std::map<char, int>{{'n', 82115}, {'v', 13767}, {'a', 18156}, {'r', 3621}});
  CHECK(examples == 48263);
}

TEST_CASE("every task has all its labels in every split, and no text, row or id twice") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  for (const auto& entry : all_tasks(*wn)) {
    const std::string& name = entry.first;
    const TaskData& task = entry.second;
    CAPTURE(name);
    CHECK(task.name == name);
    CHECK(task.kind == kind_of_task(name));
    std::set<std::uint32_t> ids;
    std::set<std::string> rows;
    std::size_t count = 0;
    for_each_split(task, [&](const std::vector<Example>& split) {
      CHECK(split.size() >= 400);
      count += split.size();
      std::set<int> labels;
      for (const Example& e : split) {
        ids.insert(e.id);
        rows.insert(e.a + '\t' + e.b);
        labels.insert(e.label);
        if (e.a.empty() || e.b.empty() == task.pair) FAIL("a text is missing or too many");
      }
      if (task.kind == TaskData::Kind::classification) {
        CHECK(labels.size() == task.labels.size());
        CHECK(*labels.begin() == 0);
      }
    });
    CHECK(ids.size() == count);
    CHECK(rows.size() == count);
  }
}

TEST_CASE("no split key stands in two splits") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  const auto& tasks = all_tasks(*wn);
  const auto template_of = [](const Example& e) { return Keys{data::normalised(e.a, 6)}; };
  for (const char* name : {"supersense", "supersense_bal", "pos", "topic"}) {
    CAPTURE(name);
    CHECK(shared_keys(tasks.at(name), template_of) == 0);
  }
  // The hypernym of a row stands right in hyper2, and right or left of a child in hyper3.
  CHECK(shared_keys(tasks.at("hyper2"), [](const Example& e) { return Keys{e.b}; }) == 0);
  CHECK(shared_keys(tasks.at("hyper3"), [](const Example& e) {
          return e.label == 0 ? Keys{e.b} : e.label == 1 ? Keys{e.a} : Keys{};
        }) == 0);
  const auto both = [](const Example& e) { return Keys{e.a, e.b}; };
  CHECK(shared_keys(tasks.at("antsyn"), both) == 0);
  CHECK(shared_keys(tasks.at("similarity_wn"), both) == 0);
  CHECK(shared_keys(tasks.at("acceptability_wn"),
                    [](const Example& e) { return Keys{data::normalised(e.a)}; }) == 0);
  CHECK(shared_keys(tasks.at("defgen"),
                    [](const Example& e) { return Keys{data::normalised(e.b, 6)}; }) == 0);
  if (tasks.contains("kjv_web"))
    CHECK(shared_keys(tasks.at("kjv_web"), [](const Example& e) {
            return Keys{data::normalised(e.a), data::normalised(e.b)};
          }) == 0);
}

TEST_CASE("the tasks are the same bytes on every machine") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  std::string digests, language;
  for (const auto& [name, task] : all_tasks(*wn)) {
    std::string text;
    for_each_split(task, [&](const std::vector<Example>& split) {
      for (const Example& e : split)
        text += fmt::format("{}\t{}\t{:.2f}\t{}\t{}\n", e.id, e.label, e.score, e.a, e.b);
      text += '\n';
    });
    const bool words = task.kind == TaskData::Kind::language;
    (words ? language : digests) += name + ' ' + md5_hex(text) + '\n';
  }
  INFO(digests << language);
  // Change this only together with the tasks, and with every result that was measured on them.
  CHECK(md5_hex(digests) == "61a0ddf9c1ec165ad64cf8f1a3f55298");
  if (all_tasks(*wn).contains("kjv_web"))
    CHECK(md5_hex(language) == "3856f5e4bcde628c871b691c9cf8ab58");
}

TEST_CASE("the first rows of a task have the classes of all its rows") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  for (const auto& entry : all_tasks(*wn)) {
    const TaskData& task = entry.second;
    if (task.kind != TaskData::Kind::classification || task.train.size() < 2000) continue;
    std::vector<double> all(task.labels.size()), few(task.labels.size());
    for (std::size_t i = 0; i < task.train.size(); ++i) {
      all[task.train[i].label] += 1.0 / double(task.train.size());
      if (i < 1000) few[task.train[i].label] += 1.0 / 1000;
    }
    for (std::size_t c = 0; c < all.size(); ++c)
      CHECK_MESSAGE(std::abs(few[c] - all[c]) < 0.06, task.name << " " << task.labels[c]);
  }
}

TEST_CASE("words beat chance and one side alone does not, where the task is made that way") {
  const WordNet* wn = wordnet();
  if (!wn) return;
  TaskData task = all_tasks(*wn).at("hyper2");
  task.train.resize(3000);
  const double words = linear_baseline(task).test;
  LinearOptions options;
  CHECK(words > 0.70);
  for (const Side side : {Side::only_a, Side::only_b}) {
    options.side = side;
    CHECK(linear_baseline(task, options).test < 0.55);
  }
}
