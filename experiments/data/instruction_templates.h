// How the tasks are put into words: templates for each, all of our own writing.
//
// A template has {fields}, which a row fills:
//   supersense        {definition} {pos} {class}    noun, food
//   pos, topic        {definition} {answer}
//   hyper2, hyper3    {word_a} {def_a} {word_b} {def_b} {answer}
//   acceptability_wn  {sentence} {answer}
//   antsyn            {word_a} {word_b} {answer}
//   similarity_wn     {def_a} {def_b} {answer}      of five bands of a score from 0 to 5
//   defgen            {word} {pos} {class} {definition}, and {kind} in rows that have one
//   kjv_web           {verse} {answer}
#pragma once

#include <string>
#include <vector>

namespace graft::data {

struct Template {
  const char* instruction;
  const char* input;    // may be empty
  const char* output;   // what is to be answered
  const char* answers;  // the words of {answer}, by label, with a bar between them; "": {answer} is
                        // a text of the row's own, or the label's name
};

struct TaskTemplates {
  std::string task;
  std::vector<Template> templates;  // at least ten; the last kHeldOutTemplates are for testing
};

constexpr std::size_t kHeldOutTemplates = 2;

// One entry for each task, in the order of task_names(); supersense_bal has supersense's rows.
const std::vector<TaskTemplates>& instruction_templates();

// The parts of that list.
std::vector<TaskTemplates> templates_about_definitions();  // supersense, pos, topic
std::vector<TaskTemplates> templates_about_pairs();        // hyper2, hyper3, antsyn, similarity_wn
std::vector<TaskTemplates> templates_about_texts();        // acceptability_wn, defgen, kjv_web

}  // namespace graft::data
