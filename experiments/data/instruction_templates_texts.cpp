// Templates for sentences that may be spoilt, and for the tasks whose answer is a text; the list.
#include "experiments/data/instruction_templates.h"
#include "experiments/data/tasks.h"

namespace graft::data {
namespace {

const std::vector<Template> kAcceptability{
    {"Is this sentence acceptable English? Answer acceptable or unacceptable.", "{sentence}",
     "{answer}", "unacceptable|acceptable"},
    {"Has a word of this text been lost, exchanged or moved? Answer yes or no.", "{sentence}",
     "{answer}", "yes|no"},
    {"Would a careful speaker say \"{sentence}\"?", "", "{answer}", "no|yes"},
    {"Mark the example as good or bad.", "Example: {sentence}", "{answer}", "bad|good"},
    {"Correct or faulty? Judge the grammar, not what is said.", "{sentence}", "{answer}",
     "faulty|correct"},
    {"An editor must decide whether the line can stay as it is or must be mended.",
     "Line: {sentence}\nDecision: stay or mend?", "{answer}", "mend|stay"},
    {"Put a star before a sentence that is ungrammatical, as linguists do; write \"no star\" for "
     "any other.",
     "{sentence}", "{answer}", "*|no star"},
    {"Are the words of the following in their right order and number?", "{sentence}", "{answer}",
     "no|yes"},
    // As the other tasks' held-out ones.
    {"Rate the grammaticality of the text: grammatical or ungrammatical.", "Text: {sentence}",
     "{answer}", "ungrammatical|grammatical"},
    {"\"{sentence}\" Does that sound right?", "", "{answer}", "no|yes"},
};

const std::vector<Template> kDefgen{
    {"Define the word.", "{word}", "{definition}", ""},
    {"What does \"{word}\" mean?", "", "{definition}", ""},
    {"Write a dictionary's definition of the {pos} \"{word}\".", "", "{definition}", ""},
    {"Explain the word in a few words, knowing what it is a kind of.",
     "Word: {word}\nA kind of: {kind}", "{definition}", ""},
    {"Here is a kind of {kind}: {word}. Say what sets it apart.", "", "{definition}", ""},
    {"Complete the dictionary entry.",
     "Word: {word}\nPart of speech: {pos}\nCategory: {class}\nMeaning: ?", "{definition}", ""},
    {"Give the meaning of the {pos}, which belongs to the field \"{class}\".", "{word}",
     "{definition}", ""},
    {"Complete the dictionary entry.",
     "Category: {class}\nA kind of: {kind}\nWord: {word}\nMeaning: ?", "{definition}", ""},
    // Held out.
    {"Somebody does not know \"{word}\". Tell them what it is.", "Hint: it is a {pos} of {class}.",
     "{definition}", ""},
    {"Provide a gloss for the following term.", "Term: {word}", "{definition}", ""},
};

const std::vector<Template> kVerses{
    {"Put this verse into modern English.", "{verse}", "{answer}", ""},
    {"Rewrite the verse of the King James Bible as a modern translation has it.", "{verse}",
     "{answer}", ""},
    {"How would one say today: \"{verse}\"?", "", "{answer}", ""},
    {"The language of this text is four hundred years old. Bring it up to date without leaving "
     "anything out.",
     "Text: {verse}", "{answer}", ""},
    {"Replace old words and forms, such as thou, hath and unto, by those in use now.", "{verse}",
     "{answer}", ""},
    {"Give the World English Bible's wording of the verse.", "King James Version: {verse}",
     "{answer}", ""},
    {"Fill in the second line.", "Old: {verse}\nNew: ?", "{answer}", ""},
    {"Translate from the English of 1611 into the English of our day.", "{verse}", "{answer}", ""},
    // Held out.
    {"A child reads this verse and does not follow it. Say the same in plain English of today.",
     "{verse}", "{answer}", ""},
    {"Paraphrase in contemporary language.", "Verse: {verse}", "{answer}", ""},
};

}  // namespace

std::vector<TaskTemplates> templates_about_texts() {
  return {{"acceptability_wn", kAcceptability}, {"defgen", kDefgen}, {"kjv_web", kVerses}};
}

const std::vector<TaskTemplates>& instruction_templates() {
  static const auto all = [] {
    std::vector<TaskTemplates> found, ordered;
    for (auto* part :
         {&templates_about_definitions, &templates_about_pairs, &templates_about_texts})
      for (TaskTemplates& t : part()) found.push_back(std::move(t));
    for (const std::string& name : task_names())
      for (const TaskTemplates& t : found)
        if (t.task == name) ordered.push_back(t);
    return ordered;
  }();
  return all;
}

}  // namespace graft::data
