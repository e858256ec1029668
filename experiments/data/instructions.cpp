#include "experiments/data/instructions.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "experiments/data/instruction_templates.h"
#include "experiments/data/md5.h"
#include "experiments/data/task_folders.h"
#include "experiments/data/task_rows.h"
#include "experiments/data/text_clean.h"
#include "nn/files/atomic.h"
#include "tensor/error.h"

namespace graft {
namespace {

using data::Template;
using Fields = std::map<std::string, std::string>;

constexpr const char* kNewTask = "acceptability_wn";
// The prompt and its answer then fit the 256 positions of the bases that come with graft.
constexpr std::size_t kMostCharacters = 600;

// --- a row's fields ------------------------------------------------------------------------------

std::string pos_word(const std::string& lexname) {
  const std::string pos = lexname.substr(0, lexname.find('.'));
  return pos == "adj" ? "adjective" : pos == "adv" ? "adverb" : pos;
}

// "noun.food": food. What the files of adjectives and adverbs are called says nothing of meaning.
std::string class_word(const std::string& lexname) {
  if (lexname.starts_with("ad") || lexname == "noun.Tops") return "";
  return lexname.substr(lexname.find('.') + 1);
}

// "dog : a member of the genus Canis ...".
void add_described(Fields& f, const std::string& text, const char* side) {
  const std::size_t colon = text.find(" : ");
  check(colon != std::string::npos, "instructions: '{}' is no 'word : definition'", text);
  f[std::string("word_") + side] = text.substr(0, colon);
  f[std::string("def_") + side] = text.substr(colon + 3);
}

// "word : bread | type : noun.food | kind of : baked goods"; the last part may be missing.
void add_entry(Fields& f, const std::string& prompt) {
  for (const char* field : {"word", "type", "kind of"}) {
    const std::string mark = std::string(field) + " : ";
    std::size_t at = prompt.starts_with(mark) ? 0 : prompt.find(" | " + mark);
    if (at == std::string::npos) continue;
    if (at > 0) at += 3;
    at += mark.size();
    f[field] = prompt.substr(at, prompt.find(" | ", at) - at);
  }
  f["pos"] = pos_word(f["type"]), f["class"] = class_word(f["type"]), f["kind"] = f["kind of"];
}

Fields fields_of(const TaskData& task, const Example& e) {
  Fields f;
  const std::string label = e.label >= 0 ? task.labels.at(e.label) : "";
  if (task.name == "supersense")
    f = {{"definition", e.a}, {"pos", pos_word(label)}, {"class", class_word(label)}};
  else if (task.name == "pos")
    f = {{"definition", e.a}};
  else if (task.name == "topic")
    f = {{"definition", e.a},
         {"choices", fmt::format("{}", fmt::join(task.labels, ", "))},
         {"answer", label}};
  else if (task.name == "hyper2" || task.name == "hyper3")
    add_described(f, e.a, "a"), add_described(f, e.b, "b");
  else if (task.name == "acceptability_wn")
    f = {{"sentence", e.a}};
  else if (task.name == "antsyn")
    f = {{"word_a", e.a}, {"word_b", e.b}};
  else if (task.name == "similarity_wn")
    f = {{"def_a", e.a}, {"def_b", e.b}};
  else if (task.name == "defgen")
    add_entry(f, e.a), f["definition"] = e.b;
  else if (task.name == "kjv_web")
    f = {{"verse", e.a}, {"answer", e.b}};
  else
    fail("instructions: nobody has said what the fields of task {} are", task.name);
  return f;
}

std::vector<std::string> keys_of(const Fields& f) {
  std::vector<std::string> keys;
  for (const char* field : {"definition", "def_a", "def_b"})
    if (const auto at = f.find(field); at != f.end()) {
      std::string text = at->second;  // "(law) ..." is a domain's mark
      if (text.starts_with('(')) text.erase(0, std::min(text.find(')'), text.size() - 1) + 1);
      keys.push_back("definition " + data::normalised(text, 6));
    }
  for (const char* field : {"sentence", "verse"})
    if (const auto at = f.find(field); at != f.end())
      keys.push_back("text " + data::normalised(at->second));
  if (f.contains("verse")) keys.push_back("text " + data::normalised(f.at("answer")));
  if (f.contains("word_a") && !f.contains("def_a"))
    for (const char* field : {"word_a", "word_b"}) keys.push_back("word " + f.at(field));
  return keys;
}

// Scores from 0 to 5 fall into five bands.
int answer_number(const TaskData& task, const Example& e) {
  return task.kind == TaskData::Kind::regression ? std::clamp(static_cast<int>(e.score), 0, 4)
                                                 : e.label;
}

// --- templates -----------------------------------------------------------------------------------

// The text with each {field} in its row's words; `empty` learns of a field that the row lacks.
std::string filled(const std::string& text, const Fields& fields, bool& empty) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t open = text.find('{', at);
    out += text.substr(at, open - at);
    if (open == std::string::npos) break;
    const std::size_t close = text.find('}', open);
    const auto field = fields.find(text.substr(open + 1, close - open - 1));
    check(close != std::string::npos && field != fields.end(),
          "instructions: template '{}' has a field that its task has not", text);
    empty |= field->second.empty();
    out += field->second;
    at = close + 1;
  }
  return out;
}

// False where the row lacks a field, or the text is too long.
bool put(const TaskData& task, const Example& e, const Template& t, Fields fields,
         Instruction& into) {
  bool empty = false;
  if (*t.answers) {
    const auto words = data::split(t.answers, '|');
    const std::size_t labels = task.kind == TaskData::Kind::regression ? 5 : task.labels.size();
    check(words.size() == labels, "instructions: template '{}' of task {} has {} answers; need {}",
          t.instruction, task.name, words.size(), labels);
    fields["answer"] = filled(std::string(words[answer_number(task, e)]), fields, empty);
  }
  into.instruction = filled(t.instruction, fields, empty);
  into.input = filled(t.input, fields, empty);
  into.output = filled(t.output, fields, empty);
  return !empty &&
         into.instruction.size() + into.input.size() + into.output.size() <= kMostCharacters;
}

struct TemplatedTask {
  TaskData task;
  const std::vector<Template>* templates;
  std::size_t known() const { return templates->size() - data::kHeldOutTemplates; }
};

// A row by one of the templates [from, to): the first that fits it, from a place on that the row's
// hash chooses. False where none does.
bool put(const TemplatedTask& source, const Example& e, std::size_t from, std::size_t to,
         Instruction& into) {
  const TaskData& task = source.task;
  const Fields fields = fields_of(task, e);
  // One word for two meanings: an answer by words would not tell them apart.
  if (fields.contains("word_a") && fields.at("word_a") == fields.at("word_b")) return false;
  into.task = task.name;
  into.keys = keys_of(fields);
  const std::uint32_t start = data::choose("template", task.name + '\x1f' + e.a + '\x1f' + e.b);
  for (std::size_t i = 0; i < to - from; ++i) {
    into.number = static_cast<int>(from + (start + i) % (to - from));
    if (put(task, e, source.templates->at(into.number), fields, into)) return true;
  }
  return false;
}

// --- sets ----------------------------------------------------------------------------------------

using Held = std::set<std::string>;

bool shares(const Instruction& i, const Held& held) {
  return std::any_of(i.keys.begin(), i.keys.end(),
                     [&](const std::string& key) { return held.contains(key); });
}

void hold(const std::vector<Instruction>& rows, Held& held) {
  for (const Instruction& i : rows) held.insert(i.keys.begin(), i.keys.end());
}

// Adds at most so many rows, by templates [from, to); none with a key that is held.
void add(const TemplatedTask& source, const std::vector<Example>& rows, std::size_t most,
         std::size_t from, std::size_t to, const Held& held, std::vector<Instruction>& into) {
  const std::size_t end = into.size() + most;
  for (std::size_t i = 0; i < rows.size() && into.size() < end; ++i)
    if (Instruction made; put(source, rows[i], from, to, made) && !shares(made, held))
      into.push_back(std::move(made));
}

// Adds test rows, each once by a known template and once by a held-out one.
void add_test(const TemplatedTask& source, std::size_t most, InstructionSets& sets) {
  const std::size_t end = sets.test.size() + most;
  const auto& rows = source.task.test;
  for (std::size_t i = 0; i < rows.size() && sets.test.size() < end; ++i) {
    Instruction known, fresh;
    if (!put(source, rows[i], 0, source.known(), known) ||
        !put(source, rows[i], source.known(), source.templates->size(), fresh))
      continue;
    sets.test.push_back(std::move(known));
    sets.new_templates.push_back(std::move(fresh));
  }
}

std::string prompt_of(const Instruction& i) { return alpaca_prompt(i.instruction, i.input); }

// The order that load_published_folder puts rows into; what stands there twice goes.
void order(std::vector<Instruction>& rows) {
  std::map<std::string, Instruction> ordered;
  for (Instruction& i : rows)
    ordered.emplace(md5_hex(prompt_of(i) + '\x1f' + i.output), std::move(i));
  rows.clear();
  for (auto& [hash, i] : ordered) rows.push_back(std::move(i));
}

const std::vector<Instruction>& test_of(const InstructionSets& sets, const std::string& name) {
  const auto& names = instruction_task_names();
  const auto at = std::find(names.begin(), names.end(), name);
  check(at != names.end(), "instructions: unknown name '{}'; known are {}", name,
        fmt::join(names, ", "));
  return at == names.begin()       ? sets.test
         : at == names.begin() + 1 ? sets.new_templates
                                   : sets.new_task;
}

}  // namespace

InstructionSets make_instructions(const std::function<TaskData(const std::string&)>& task,
                                  const InstructionSizes& sizes) {
  InstructionSets sets;
  std::vector<TemplatedTask> known;
  Held held;
  for (const auto& [name, templates] : data::instruction_templates()) {
    TemplatedTask source{task(name), &templates};
    if (name == kNewTask) {
      add(source, source.task.test, sizes.new_task, 0, templates.size(), held, sets.new_task);
    } else {
      add_test(source, sizes.test, sets);
      known.push_back(std::move(source));
    }
  }
  hold(sets.test, held), hold(sets.new_task, held);
  for (const TemplatedTask& s : known) add(s, s.task.dev, sizes.dev, 0, s.known(), held, sets.dev);
  hold(sets.dev, held);
  for (const TemplatedTask& s : known)
    add(s, s.task.train, sizes.train, 0, s.known(), held, sets.train);
  for (auto* rows : {&sets.train, &sets.dev, &sets.test, &sets.new_templates, &sets.new_task})
    order(*rows);
  return sets;
}

const std::vector<std::string>& instruction_task_names() {
  static const std::vector<std::string> names{"instructions", "instructions_template",
                                              "instructions_task"};
  return names;
}

TaskData instruction_task(const InstructionSets& sets, const std::string& name) {
  TaskData task;
  task.name = name, task.kind = TaskData::Kind::language, task.metric = "loss";
  task.pair = task.joined = true;
  task.note = fmt::format("instruction, input -> output, made from the other tasks; tested on {}",
                          name == "instructions" ? "new rows"
                          : name == "instructions_template"
                              ? "new rows in new words"
                              : fmt::format("{}, of which training has nothing", kNewTask));
  std::uint32_t id = 0;
  const auto put = [&id](const std::vector<Instruction>& from, std::vector<Example>& to) {
    for (const Instruction& i : from) to.push_back({prompt_of(i), i.output, -1, 0, id++});
  };
  put(sets.train, task.train), put(sets.dev, task.dev), put(test_of(sets, name), task.test);
  return task;
}

void write_alpaca(const InstructionSets& sets, const std::string& name,
                  const std::filesystem::path& dir) {
  std::filesystem::create_directories(dir);
  const auto write = [&](const char* file, const std::vector<Instruction>& rows) {
    std::string text = "[\n";
    for (const Instruction& i : rows) {
      const nlohmann::ordered_json row{
          {"instruction", i.instruction}, {"input", i.input}, {"output", i.output}};
      text += (text.size() > 2 ? ",\n" : "") + row.dump();
    }
    write_file_atomically(dir / file, text + "\n]\n");
  };
  write("train.json", sets.train);
  write("dev.json", sets.dev);
  write("test.json", test_of(sets, name));
  const nlohmann::ordered_json description{
      {"format", "alpaca"}, {"train", "train.json"}, {"dev", "dev.json"}, {"test", "test.json"}};
  write_file_atomically(dir / "task.json", description.dump(2) + "\n");
}

}  // namespace graft
