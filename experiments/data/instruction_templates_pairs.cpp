// Templates for the tasks that compare two things.
#include "experiments/data/instruction_templates.h"

namespace graft::data {
namespace {

constexpr const char* kNoYes = "no|yes";
constexpr const char* kThree =
    "the first is a kind of the second|the second is a kind of the first|both are kinds of a third";

const std::vector<Template> kHyper2{
    {"Is the first thing a kind of the second? Answer yes or no.",
     "First: {word_a}, {def_a}\nSecond: {word_b}, {def_b}", "{answer}", kNoYes},
    {"Is the second thing a kind of the first? Answer yes or no.",
     "First: {word_b}, {def_b}\nSecond: {word_a}, {def_a}", "{answer}", kNoYes},
    {"True or false: {word_a} ({def_a}) is a kind of {word_b} ({def_b}).", "", "{answer}",
     "false|true"},
    {"Does the broader class that is named at the end take in what is named before it?",
     "{word_a}: {def_a}\nBroader class: {word_b}: {def_b}", "{answer}", kNoYes},
    {"Say right if the claim holds by these meanings, and wrong if not.",
     "Claim: {word_a} is one sort of {word_b}.\n{word_b} means {def_b}.\n{word_a} means {def_a}.",
     "{answer}", "wrong|right"},
    {"Could {word_b} stand as the general term for {word_a}?",
     "{word_a}: {def_a}\n{word_b}: {def_b}", "{answer}", kNoYes},
    {"A catalogue has the heading \"{word_b}\" ({def_b}). Should this entry go under it?",
     "{word_a}: {def_a}", "{answer}", kNoYes},
    {"Two meanings are given. Tell whether the one belongs to the other as a special case; write "
     "\"it does\" or \"it does not\".",
     "The special case: {def_a}\nThe general one: {def_b}", "{answer}", "it does not|it does"},
    // Held out.
    {"Is {word_b} a hypernym of {word_a}?", "{word_b}: {def_b}\n{word_a}: {def_a}", "{answer}",
     kNoYes},
    {"If something is \"{def_a}\", is it then also \"{def_b}\"?", "", "{answer}", kNoYes},
};

const std::vector<Template> kHyper3{
    {"How do the two things stand to each other? Say which is a kind of which, or that both are "
     "kinds of a third.",
     "First: {word_a}, {def_a}\nSecond: {word_b}, {def_b}", "{answer}", kThree},
    {"Which of the two is the more general, {word_a} or {word_b}? Answer \"neither\" if they are "
     "on one level.",
     "{word_a}: {def_a}\n{word_b}: {def_b}", "{answer}", "{word_b}|{word_a}|neither"},
    {"Which of the two is the more special, {word_b} or {word_a}? Answer \"neither\" if they are "
     "on one level.",
     "{word_b}: {def_b}\n{word_a}: {def_a}", "{answer}", "{word_a}|{word_b}|neither"},
    {"Starting from {word_a}, is {word_b} above it, below it or beside it in a tree of meanings?",
     "{word_a}: {def_a}\n{word_b}: {def_b}", "{answer}", "above|below|beside"},
    {"Use one word, parent, child or sibling, for what the second meaning is to the first.",
     "First: {def_a}\nSecond: {def_b}", "{answer}", "parent|child|sibling"},
    {"Complete the sentence with \"a kind of\", \"the general term for\" or \"of one kind with\".",
     "{word_a} ({def_a}) is ... {word_b} ({def_b}).", "{answer}",
     "a kind of|the general term for|of one kind with"},
    {"Put the right sign between the two: < if the left one is a kind of the right one, > if it is "
     "the other way round, = if both are kinds of a third.",
     "left: {word_a}: {def_a}\nright: {word_b}: {def_b}", "{answer}", "<|>|="},
    {"Does being the first thing mean being the second, or the reverse, or neither of them?",
     "Second: {word_b}, {def_b}\nFirst: {word_a}, {def_a}", "{answer}",
     "the first means the second|the reverse|neither"},
    // Held out.
    {"Is {word_b} the hypernym, the hyponym or a co-hyponym of {word_a}?",
     "{word_a}: {def_a}\n{word_b}: {def_b}", "{answer}", "hypernym|hyponym|co-hyponym"},
    {"Compare the meanings: is A narrower than B, broader than B, or as broad?",
     "A: {def_a}\nB: {def_b}", "{answer}", "narrower|broader|as broad"},
};

constexpr const char* kWords = "antonym|synonym|unrelated";

const std::vector<Template> kAntsyn{
    {"Are the two words antonyms, synonyms or unrelated?", "{word_a}, {word_b}", "{answer}",
     "antonyms|synonyms|unrelated"},
    {"Do \"{word_a}\" and \"{word_b}\" mean the opposite, the same, or have they nothing to do "
     "with "
     "each other?",
     "", "{answer}", "the opposite|the same|nothing to do with each other"},
    {"Compare two words. Answer opposite, alike or neither.",
     "First word: {word_a}\nSecond word: {word_b}", "{answer}", "opposite|alike|neither"},
    {"What is \"{word_b}\" to \"{word_a}\": antonym, synonym or unrelated?", "", "{answer}",
     kWords},
    {"Complete: \"{word_b}\" is ... \"{word_a}\".",
     "Choices: the opposite of, another word for, not related to", "{answer}",
     "the opposite of|another word for|not related to"},
    {"A writer thinks of putting the second word in the first one's place. Would that keep the "
     "meaning, turn it round or lose it?",
     "First: {word_a}\nSecond: {word_b}", "{answer}", "turn it round|keep the meaning|lose it"},
    {"Put = between words of one meaning, x between opposites and - between others.",
     "{word_a} ? {word_b}", "{answer}", "x|=|-"},
    {"Name the relation.", "Relations: synonym, antonym, unrelated\nWords: {word_b} and {word_a}",
     "{answer}", kWords},
    // Held out.
    {"In a thesaurus under \"{word_a}\", would \"{word_b}\" stand among the synonyms, among the "
     "antonyms, or not at all?",
     "", "{answer}", "among the antonyms|among the synonyms|not at all"},
    {"Are these two alike in meaning, contrary, or neither?", "{word_b} / {word_a}", "{answer}",
     "contrary|alike|neither"},
};

constexpr const char* kBands = "very low|low|medium|high|very high";

const std::vector<Template> kSimilarity{
    {"How similar are the two things? Answer very low, low, medium, high or very high.",
     "First: {def_a}\nSecond: {def_b}", "{answer}", kBands},
    {"How similar are the two things? Answer with a number from 1 (far apart) to 5 (nearly one).",
     "{def_a}\n{def_b}", "{answer}", "1|2|3|4|5"},
    {"Rate in words how near \"{def_a}\" is to \"{def_b}\": very far, far, middling, near or very "
     "near.",
     "", "{answer}", "very far|far|middling|near|very near"},
    {"Two nouns are defined. Give the likeness of their meanings as one of: very low, low, medium, "
     "high, very high.",
     "B: {def_b}\nA: {def_a}", "{answer}", kBands},
    {"How much do the meanings have in common? Choose nothing, little, something, much or nearly "
     "all.",
     "Meaning: {def_a}\nOther meaning: {def_b}", "{answer}",
     "nothing|little|something|much|nearly all"},
    {"Fill in the last line.", "Definition: {def_b}\nDefinition: {def_a}\nSimilarity: ?",
     "{answer}", kBands},
    {"Give a mark for likeness, from E for the least to A for the most.",
     "One: {def_a}\nTwo: {def_b}", "{answer}", "E|D|C|B|A"},
    {"Imagine all nouns as one tree. Are these two on the same twig, the same branch, the same "
     "bough, the same trunk, or in two trees?",
     "{def_a} / {def_b}", "{answer}",
     "in two trees|the same trunk|the same bough|the same branch|the same twig"},
    // Held out.
    {"Judge the semantic similarity of these glosses (very low, low, medium, high, very high).",
     "Gloss 1: {def_a}\nGloss 2: {def_b}", "{answer}", kBands},
    {"On a scale of one to five, in words, how closely related are these?", "{def_b}\nand\n{def_a}",
     "{answer}", "one|two|three|four|five"},
};

}  // namespace

std::vector<TaskTemplates> templates_about_pairs() {
  return {{"hyper2", kHyper2},
          {"hyper3", kHyper3},
          {"antsyn", kAntsyn},
          {"similarity_wn", kSimilarity}};
}

}  // namespace graft::data
