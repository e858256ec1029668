// The families' own heads for whole texts: transformers' classes ...ForSequenceClassification, what
// config.json says of them, and how a task starts from one.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nn/model.h"

namespace graft {

struct Family;

// Whether a parameter is a head's: by its site, or by its label.
bool is_heads(const Site&);
bool is_heads(std::string_view label);

// What config.json says of such a head: the names of its classes in the order of their ids. None:
// it gives one value.
struct HeadConfig {
  std::vector<std::string> labels;
};

// Whether a config.json's `architectures` names the family's class with a head for whole texts.
// Throws where it names one that the family does not have here.
bool has_family_head(const std::string& file, const Family&, const nlohmann::ordered_json& values);

// The head of a folder, or nothing where it was saved without. Throws one Error for keys that
// contradict each other, and for a problem_type other than one class of several and one value.
std::optional<HeadConfig> read_head(const std::filesystem::path& config_json);
// Adds id2label, label2id and problem_type. Throws where two classes have one name.
void write_head(nlohmann::ordered_json& values, const HeadConfig&);

// What the family's own head computes. Throws where the family has none.
HeadForm head_form(const Arch&);

// Whether that begins with the matrix for pooling that is saved with the family's bodies.
bool head_begins_with_pooler(const Arch&);
// That matrix as the checkpoint has it, in the body or in a head of the family's. Null: it has
// none.
const Linear* saved_pooler(const Model&);

// Gives the model the head that a folder's config.json tells of, its numbers still to be read.
void add_saved_head(Model&, const std::filesystem::path& config_json);

// What config.json will say of the model's head. Nothing where it has none with parameters of its
// own; throws where it is another than its family's.
std::optional<HeadConfig> head_to_save(const Model&);

// Whether a head tells these classes apart, in whatever order; none: whether it gives a value.
bool tells(const Head&, const std::vector<std::string>& labels);

// "noun.food, noun.animal"; for a head of values, or many labels, in other words.
std::string labels_in_words(const std::vector<std::string>& labels);

// The family's own head for a task with these classes (none: for values). Where the model has such
// a head for the same classes, with its numbers, in the task's order; else it is new, and BERT's
// begins with the matrix for pooling that the body was saved with, if there is one. from: which of
// these it was, in words.
struct StartedHead {
  std::unique_ptr<LinearHead> head;
  std::string from;
};
StartedHead start_family_head(const Build&, const Model&, const std::vector<std::string>& labels);

}  // namespace graft
