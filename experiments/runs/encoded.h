// A task's examples as token ids, ready for batches.
#pragma once

#include <string>
#include <vector>

#include "experiments/data/tasks.h"
#include "nn/batch.h"
#include "nn/model.h"
#include "nn/text/tokenizer.h"

namespace graft {

enum class Goal { classification, regression, language };

struct EncodedExample {
  std::vector<std::int32_t> token;
  std::vector<std::int32_t> type;    // of each token (Batch::token_type), where the model asks
  std::vector<std::int32_t> source;  // text to text: what the encoder reads; token is the answer
  int prompt = 0;                    // language: tokens before the part that is predicted
  std::int32_t label = -1;
  float target = 0;
  std::uint32_t id = 0;
};

struct EncodedTask {
  std::string name;
  Goal goal = Goal::classification;
  std::vector<std::string> labels;
  std::string metric;
  std::vector<EncodedExample> train, dev, test;
  bool joined = false;  // language: as TaskData's
  int shortened = 0;    // examples cut to fit the model's positions
  // Tokens of each label's word, for cloze heads; text to text: the whole answers to choose from,
  // and of a regression what each is worth.
  std::vector<std::vector<std::int32_t>> label_words;
  std::vector<float> values;
  int start = -1;  // text to text: what the decoder begins with
  // How the task was put, as TaskData's, for whoever puts other rows so. prefix: text to text
  // alone.
  std::string prefix;
  std::vector<std::string> fields, words;
  std::vector<std::string> columns;  // what files of its rows call a text, or the texts of a pair
  int index = -1;  // among the tasks that a run has several of: what its batches say (Batch::task)
  bool text() const { return start >= 0; }
};

struct EncodeSpec {
  int max_tokens = 128;
  int train_rows = 0, dev_rows = 0, test_rows = 0;  // the first so many rows; 0: all
  bool cloze = false;                               // `text ... [MASK]`, read at the mask
  bool only_test = false;  // train and dev may be empty: rows without a training
  // One text or a pair as transformers encodes it with the model's tokenizer: what its
  // post-processor sets around them, and nothing else.
  bool marked = false;
};

// How texts are encoded for a head: `spec` with cloze or marked set.
EncodeSpec encode_for(const std::string& head, EncodeSpec spec);

// Throws where the model cannot take on tasks of that kind: a language task needs a causal one.
void check_fits(TaskData::Kind, const std::string& task, const Arch&);

// [CLS] a [SEP] (b [SEP]); decoders get a [SEP] b [SEP], after what their tokenizer begins a text
// with (LLaMA's <s>; GPT-2's nothing). With goal language, b and
// the [SEP] that ends it are what is predicted; a joined task has no [SEP] after a. Longer texts
// lose the end of their longer part, a joined task's as fit_joined() says; a continuation that lost
// its end is not followed by [SEP].
// Encoder-decoders get the text-to-text form (text_form.h), max_tokens for each side.
EncodedTask encode_task(const TaskData&, const Tokenizer&, const Arch&, const EncodeSpec&);

// Examples [first, first + count) of `order` as one ragged batch.
Batch make_batch(const EncodedTask&, const std::vector<EncodedExample>&,
                 const std::vector<std::int32_t>& order, std::size_t first, std::size_t count);

// A permutation of 0..n-1, a pure function of (seed, epoch).
std::vector<std::int32_t> shuffled(std::size_t n, std::uint32_t seed, int epoch);

}  // namespace graft
