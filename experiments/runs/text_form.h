// A task in text-to-text form, as an encoder-decoder takes it (Raffel et al. 2020, 1910.10683,
// section 2.4 and appendix D): the encoder reads "hyper3 first: ... second: ...", the decoder
// writes the label's word and the end token. A language task is read and written as it stands.
#pragma once

#include <string>
#include <vector>

#include "experiments/data/tasks.h"
#include "nn/text/tokenizer.h"

namespace graft {

// What stands before a's text, and before b's. T5's code puts the fields in alphabetical order of
// their names, so b may come first.
struct TextForm {
  struct Part {
    std::string before;
    bool is_b = false;
  };
  std::vector<Part> parts;
};
TextForm text_form(const TaskData&);
std::string prefix_of(const TaskData&);  // its own, or else its name in small letters

// What is written for each label: the task's word for it, or itself, in which a dot between letters
// becomes a space ("noun.food" -> "noun food").
std::vector<std::string> label_texts(const TaskData&);

// Scores are written rounded to 0.2, as T5's code has STS-B's: "2.57" as "2.6".
struct ScoreTexts {
  std::vector<std::string> texts;  // from the least to the greatest of train's scores
  std::vector<float> values;
  int nearest(float score) const;
};
// Throws where that makes more than 200 texts.
ScoreTexts score_texts(const TaskData&);

// The ids of what the encoder reads, the end token included: at most `most` of them. Longer texts
// lose the end of their longer part, and `cut` becomes true.
std::vector<int> encode_source(const TaskData&, const Example&, const Tokenizer&, int end,
                               std::size_t most, bool& cut);

// Cuts the longer of two parts until both fit; says whether anything was cut.
bool fit(std::vector<int>& a, std::vector<int>& b, std::size_t most);

// The same for a prompt that says by its end what follows ("### Response:"): the answer b loses its
// end. Where it would keep less than a quarter of the room, the prompt loses its middle for that.
bool fit_joined(std::vector<int>& a, std::vector<int>& b, std::size_t most);

}  // namespace graft
