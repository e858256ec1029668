// Instruction data: templates, what may stand in which split, the same bytes everywhere.
#include "experiments/data/instructions.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "experiments/data/instruction_templates.h"
#include "experiments/data/md5.h"
#include "experiments/data/task_folders.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

// WordNet's and the Bibles' where this machine has them; made once.
const InstructionSets* real_sets() {
  static const auto sets = []() -> std::unique_ptr<InstructionSets> {
    const fs::path packages = default_data_dir() / "packages", dir = find_wordnet(packages);
    if (dir.empty() || !fs::exists(packages / "usr/lib/bible.data")) return nullptr;
    const WordNet wn = WordNet::load(dir);
    return std::make_unique<InstructionSets>(
        make_instructions([&](const std::string& name) { return build_task(name, wn, packages); }));
  }();
  if (!sets) MESSAGE("SKIPPED: WordNet or the Bibles are not here; experiments/data/fetch.sh");
  return sets.get();
}

// A task of a few rows, in the form that the real one of that name has. Each text names its split:
// apple is in train, berry in dev, cherry in test.
TaskData small(const std::string& name) {
  TaskData t;
  t.name = name;
  t.kind = name == "defgen" || name == "kjv_web" ? TaskData::Kind::language
           : name == "similarity_wn"             ? TaskData::Kind::regression
                                                 : TaskData::Kind::classification;
  if (name == "supersense") t.labels = {"noun.food", "verb.motion"};
  if (name == "pos") t.labels = {"noun", "verb", "adj", "adv"};
  if (name == "topic") t.labels = {"law", "music"};
  if (name == "hyper2") t.labels = {"no", "yes"};
  if (name == "hyper3") t.labels = {"entails", "reverse", "sibling"};
  if (name == "acceptability_wn") t.labels = {"unacceptable", "acceptable"};
  if (name == "antsyn") t.labels = {"antonym", "synonym", "unrelated"};
  int n = 0;
  for (auto* split : {&t.train, &t.dev, &t.test})
    for (int i = 0; i < 40; ++i, ++n) {
      Example e;
      const std::string fruit = split == &t.train ? "apple" : split == &t.dev ? "berry" : "cherry";
      const std::string x = fruit + std::to_string(n) + name, y = x + "y";
      e.a = x + " is one of many things", e.b = y + " is another thing";
      if (name.starts_with("hyper")) e.a = x + " : " + e.a, e.b = y + " : " + e.b;
      if (name == "antsyn") e.a = x, e.b = y;
      if (name == "defgen") {
        e.a = "word : " + x + " | type : " + (i % 4 ? "noun.food" : "adj.all");
        if (i % 3) e.a += " | kind of : food";
      }
      if (!t.labels.empty()) e.label = i % static_cast<int>(t.labels.size());
      e.score = static_cast<float>(i % 51) / 10;
      split->push_back(e);
    }
  return t;
}

std::string text_of(const std::vector<Instruction>& rows) {
  std::string text;
  for (const Instruction& i : rows)
    text += fmt::format("{}\x1f{}\x1f{}\x1f{}\x1f{}\n", i.task, i.number, i.instruction, i.input,
                        i.output);
  return text;
}

int templates_of(const std::string& task) {
  for (const auto& t : data::instruction_templates())
    if (t.task == task) return static_cast<int>(t.templates.size());
  return 0;
}

using Keys = std::set<std::string>;
Keys keys_of(const std::vector<Instruction>& rows) {
  Keys keys;
  for (const Instruction& i : rows) keys.insert(i.keys.begin(), i.keys.end());
  return keys;
}

int shared(const Keys& a, const Keys& b) {
  return static_cast<int>(
      std::count_if(a.begin(), a.end(), [&](const std::string& key) { return b.contains(key); }));
}

// What holds of every making of these sets.
void check_sets(const InstructionSets& sets) {
  const int held_out = static_cast<int>(data::kHeldOutTemplates);
  for (const auto* rows : {&sets.train, &sets.dev, &sets.test})
    for (const Instruction& i : *rows) {
      CHECK(i.task != "acceptability_wn");
      CHECK(i.number < templates_of(i.task) - held_out);
    }
  for (const Instruction& i : sets.new_templates)
    CHECK(i.number >= templates_of(i.task) - held_out);
  for (const Instruction& i : sets.new_task) CHECK(i.task == "acceptability_wn");
  for (const auto* rows : {&sets.train, &sets.dev, &sets.test, &sets.new_templates, &sets.new_task})
    for (const Instruction& i : *rows) {
      CHECK(!i.instruction.empty());
      CHECK(!i.output.empty());
      CHECK(!i.keys.empty());
      CHECK(i.instruction.size() + i.input.size() + i.output.size() <= 600);
    }
  CHECK(sets.test.size() == sets.new_templates.size());
  CHECK(keys_of(sets.test) == keys_of(sets.new_templates));  // the same rows in other words
  Keys tested = keys_of(sets.test);
  tested.merge(keys_of(sets.new_task));
  CHECK(shared(keys_of(sets.train), tested) == 0);
  CHECK(shared(keys_of(sets.train), keys_of(sets.dev)) == 0);
  CHECK(shared(keys_of(sets.dev), tested) == 0);
}

}  // namespace

TEST_CASE("every task but supersense_bal has at least ten templates, all different") {
  Keys seen, tasks;
  for (const data::TaskTemplates& entry : data::instruction_templates()) {
    const std::string& task = entry.task;
    CAPTURE(task);
    CHECK(entry.templates.size() >= 10);
    tasks.insert(task);
    for (const data::Template& t : entry.templates)
      CHECK(seen.insert(task + t.instruction + '\x1f' + t.input).second);
  }
  Keys wanted(task_names().begin(), task_names().end());
  wanted.erase("supersense_bal");
  for (const std::string& name : instruction_task_names()) wanted.erase(name);
  CHECK(tasks == wanted);
}

TEST_CASE("each row of a small task is put into words, every template with every field filled") {
  const InstructionSets sets = make_instructions(small, {1000, 1000, 1000, 1000});
  check_sets(sets);
  CHECK(sets.train.size() == 9 * 40);
  CHECK(sets.dev.size() == 9 * 40);
  CHECK(sets.test.size() == 9 * 40);
  CHECK(sets.new_task.size() == 40);
  std::map<std::string, std::set<int>> used;
  for (const auto* rows : {&sets.train, &sets.dev, &sets.test, &sets.new_templates, &sets.new_task})
    for (const Instruction& i : *rows) {
      used[i.task].insert(i.number);
      for (const std::string& text : {i.instruction, i.input, i.output})
        CHECK(text.find_first_of("{}|") == std::string::npos);
    }
  for (const auto& entry : used) {
    CAPTURE(entry.first);
    CHECK(static_cast<int>(entry.second.size()) == templates_of(entry.first));
  }
  CHECK(used.size() == data::instruction_templates().size());
}

TEST_CASE("training has rows of train alone, dev of dev, and test of test") {
  const InstructionSets sets = make_instructions(small);
  const auto fruits = [](const std::vector<Instruction>& rows) {
    Keys found;
    for (const Instruction& i : rows)
      for (const char* fruit : {"apple", "berry", "cherry"})
        if ((i.instruction + i.input + i.output).find(fruit) != std::string::npos)
          found.insert(fruit);
    return found;
  };
  CHECK(fruits(sets.train) == Keys{"apple"});
  CHECK(fruits(sets.dev) == Keys{"berry"});
  for (const auto* rows : {&sets.test, &sets.new_templates, &sets.new_task})
    CHECK(fruits(*rows) == Keys{"cherry"});
}

TEST_CASE("a row whose text another split's row has stays with test, or else with dev") {
  const auto task = [](const std::string& name) {
    TaskData t = small(name);
    // What pos asks in test and dev, supersense would tell in training.
    if (name == "supersense")
      t.train[0].a = small("pos").test[1].a, t.train[1].a = small("pos").dev[1].a;
    if (name == "similarity_wn") t.dev[2].b = "(law) " + small("pos").test[3].a;
    return t;
  };
  const InstructionSets sets = make_instructions(task, {1000, 1000, 1000, 1000});
  check_sets(sets);
  CHECK(sets.train.size() == 9 * 40 - 2);
  CHECK(sets.dev.size() == 9 * 40 - 1);
  CHECK(sets.test.size() == 9 * 40);
}

TEST_CASE("instructions written as Alpaca's JSON are read as the same task, example for example") {
  const InstructionSets sets = make_instructions(small, {50, 20, 20, 30});
  for (const std::string& name : instruction_task_names()) {
    CAPTURE(name);
    const Folder folder;
    write_alpaca(sets, name, folder / name.c_str());
    const TaskData made = instruction_task(sets, name),
                   read = load_published_folder(folder / name.c_str());
    CHECK(read.name == name);
    CHECK(read.kind == made.kind);
    CHECK(read.joined);
    for (auto split : {&TaskData::train, &TaskData::dev, &TaskData::test}) {
      REQUIRE((read.*split).size() == (made.*split).size());
      for (std::size_t i = 0; i < (read.*split).size(); ++i) {
        const Example &x = (read.*split)[i], &y = (made.*split)[i];
        CHECK((x.a == y.a && x.b == y.b && x.id == y.id));
      }
    }
  }
  contains(error_of([&] { instruction_task(sets, "orders"); }), "unknown name 'orders'");
}

TEST_CASE("the real tasks' instructions keep the rules, and are the same bytes on every machine") {
  const InstructionSets* sets = real_sets();
  if (!sets) return;
  check_sets(*sets);
  std::map<std::string, int> train, test;
  std::map<std::pair<std::string, int>, int> by_template;
  for (const Instruction& i : sets->train) ++train[i.task], ++by_template[{i.task, i.number}];
  for (const Instruction& i : sets->test) ++test[i.task];
  for (const data::TaskTemplates& entry : data::instruction_templates()) {
    const std::string& task = entry.task;
    if (task == "acceptability_wn") continue;
    CAPTURE(task);
    CHECK(train[task] >= 1200);
    CHECK(train[task] <= 2000);
    CHECK(test[task] == 200);
    for (int i = 0; i < templates_of(task) - int(data::kHeldOutTemplates); ++i)
      CHECK(by_template[{task, i}] >= 50);
  }
  CHECK(sets->dev.size() == 900);
  CHECK(sets->new_task.size() == 1000);
  std::string digests;
  for (const auto* rows :
       {&sets->train, &sets->dev, &sets->test, &sets->new_templates, &sets->new_task})
    digests += fmt::format("{} {}\n", rows->size(), md5_hex(text_of(*rows)));
  INFO(digests);
  // Change this only together with the tasks or templates, and with every result measured on them.
  CHECK(md5_hex(digests) == "6532b409cfd81e70f0890bebe2477ef9");
}
