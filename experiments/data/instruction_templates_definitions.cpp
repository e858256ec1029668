// Templates for the tasks that read a definition.
#include "experiments/data/instruction_templates.h"

namespace graft::data {
namespace {

constexpr const char* kPos = "noun|verb|adjective|adverb";
constexpr const char* kNameOf = "the name of a thing|an action|a quality|a manner";

const std::vector<Template> kSupersense{
    {"Say whether the definition is of a noun or a verb, and name the field of meaning it belongs "
     "to.",
     "{definition}", "{pos}, {class}", ""},
    {"To which broad class of meaning does the {pos} with this definition belong? Answer with one "
     "word.",
     "{definition}", "{class}", ""},
    {"A dictionary keeps its words in files such as noun animal or verb motion. In which file is "
     "the word with this meaning?",
     "Meaning: {definition}", "{pos} {class}", ""},
    {"A {pos} is defined as \"{definition}\". What class of meanings is that?", "", "{class}", ""},
    {"Sort this dictionary entry into its category.",
     "Part of speech: {pos}\nMeaning: {definition}", "{class}", ""},
    {"Read the meaning; give the category first and then the part of speech.",
     "Meaning: {definition}", "{class} ({pos})", ""},
    {"Is this about food, an animal, an act, a feeling, or something else? Name the category of "
     "the {pos}.",
     "{definition}", "{class}", ""},
    {"Fill in what the card leaves open.",
     "Meaning: {definition}\nPart of speech: {pos}\nCategory: ?", "{class}", ""},
    // Held out.
    {"Which supersense does this {pos} have?", "Gloss: {definition}", "{class}", ""},
    {"Label the gloss with its part of speech and, after a colon, its subject.", "{definition}",
     "{pos}: {class}", ""},
};

const std::vector<Template> kPartOfSpeech{
    {"What part of speech is the word with this definition?", "{definition}", "{answer}", kPos},
    {"Is a noun, a verb, an adjective or an adverb defined here?", "{definition}", "{answer}",
     kPos},
    {"Here is what a word means: {definition}. Name its part of speech.", "", "{answer}", kPos},
    {"Give the abbreviation that a dictionary prints before this meaning: n., v., adj. or adv.",
     "Meaning: {definition}", "{answer}", "n.|v.|adj.|adv."},
    {"Tell from the meaning alone how the word is used in a sentence.",
     "Choices: noun, verb, adjective, adverb\nMeaning: {definition}", "{answer}", kPos},
    {"Does the meaning stand for the name of a thing, an action, a quality or a manner?",
     "{definition}", "{answer}", kNameOf},
    {"Complete the dictionary entry.", "Meaning: {definition}\nPart of speech: ?", "{answer}",
     kPos},
    {"\"{definition}\" explains a word. Which kind of word? Begin with \"an\" or \"a\".", "",
     "{answer}", "a noun|a verb|an adjective|an adverb"},
    // Held out.
    {"Grammar question: to which word class does the defined word belong?",
     "The definition reads: {definition}", "{answer}", kPos},
    {"Choose the right one of noun, verb, adjective and adverb for a word that means the "
     "following.",
     "{definition}", "{answer}", kPos},
};

const std::vector<Template> kTopic{
    {"Which field of knowledge or life is this term from?", "{definition}", "{answer}", ""},
    {"Name the subject that a reader of this definition should look under.",
     "Definition: {definition}", "{answer}", ""},
    {"Some word is used by experts with this meaning: {definition}. Experts in what?", "",
     "{answer}", ""},
    {"Choose the subject of the definition.", "Subjects: {choices}\nDefinition: {definition}",
     "{answer}", ""},
    {"Choose the subject of the definition.", "Definition: {definition}\nSubjects: {choices}",
     "{answer}", ""},
    {"File the entry. Answer with the name of the shelf alone.",
     "Entry: {definition}\nShelves: {choices}", "{answer}", ""},
    {"In a special dictionary, the dictionary of what, would this meaning be found?",
     "{definition}", "{answer}", ""},
    {"The topic of a definition is missing; a gap (_) stands where its name was. Give it.",
     "Meaning: {definition}\nTopic: ?", "{answer}", ""},
    // Held out.
    {"What is the domain of this gloss?", "Gloss: {definition}", "{answer}", ""},
    {"One of these domains fits the text that follows them: {choices}. Which?", "{definition}",
     "{answer}", ""},
};

}  // namespace

std::vector<TaskTemplates> templates_about_definitions() {
  return {{"supersense", kSupersense}, {"pos", kPartOfSpeech}, {"topic", kTopic}};
}

}  // namespace graft::data
