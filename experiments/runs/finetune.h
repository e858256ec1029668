// One fine-tuning run: a frozen base, a method, a task, a rate, a seed. A pure function of these.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>

#include "experiments/data/metrics.h"
#include "experiments/runs/encoded.h"
#include "nn/frozen_rows.h"
#include "peft/methods.h"

namespace graft {

// Everything that decides a run's bits, apart from the base and the task's rows.
struct RunSpec {
  std::string method = "lora:r=8,on=q+v";
  // linear (the standard), dense (a square matrix and tanh first), cloze, or family: the one that
  // transformers has for the model's family, which a model can be handed back with; of an
  // encoder-decoder text, which is its standard. "": the standard.
  std::string head = "";
  std::string pool = "mean";  // mean, cls or last; a family's head has its own
  std::string optimizer = "adamw", schedule = "linear";
  double lr = 1e-3, decay = 0.01, clip = 1.0, warmup = 0.1;  // warm-up: part of all steps
  double eps = 1e-8;                                         // Adam's
  int epochs = 3, batch = 32, micro = 0;  // micro: sequences per pass, 0: the whole batch
  std::uint32_t seed = 0;
  std::string checkpoint = "none";  // none, inner or blocks: see Checkpoint
  std::string device = "cpu";       // or cuda: where the base lies, and all that is computed
  std::string compute = "f32";      // or bf16, on a device: see HalfPrecision

  // With the head that a model of this shape has by standard, where none is named. Throws for one
  // that does not go with it.
  RunSpec on(const Arch&) const;
  nlohmann::json json() const;
  // Throws naming the key for one that is unknown or of the wrong type.
  static RunSpec from(const nlohmann::json&);
};

struct RunResult {
  std::vector<double> dev;         // the task's metric after each epoch, turned: higher is better
  std::vector<double> train_loss;  // mean over each epoch
  int best_epoch = 0;              // chosen on dev
  double dev_best = 0, test = 0;   // turned as well; test is read once, at the best epoch
  std::vector<float> test_rows;    // per test example: right or wrong, squared error, or mean loss
                                   // (in nats, lower is better)
  std::vector<float> test_predictions;  // class, value, or mean loss
  std::int64_t trainable = 0, head = 0, base = 0;
  int frozen_blocks = 0;  // so many of the lowest were computed once an example (FrozenRows),
  std::size_t frozen_bytes = 0;    // which kept that much; 0 blocks: none, and
  int drawing_blocks = 0;          // so many are frozen but for their dropout
  std::uint64_t weights_hash = 0;  // of all trainable numbers at the best epoch
  double seconds = 0;
  std::size_t peak_bytes = 0;
};

// What a finished run may be asked for before its adapter is taken off: `model` is at the best
// epoch, adapted. (Removing adapters layer by layer without training again, saving, merging.)
using AtBest = std::function<void(Model&, Adaptation&, const EncodedTask&)>;

// What one step did, once it is done.
struct StepNote {
  int step, epoch;  // counted from 0
  double loss, rate;
  double norm;                          // of the gradient, before clipping
  std::vector<std::uint32_t> examples;  // the batch, in order, by Example::id
};

struct RunPlaces {
  std::filesystem::path state;  // where a killed run resumes from, or empty
  double state_seconds = 60;    // between such checkpoints
  std::function<void(int step, int steps, double loss)> progress;
  std::function<void(const StepNote&)> log =
      {};  // each step once; a resumed run goes on with its own
  // Gives what a saved adapter holds (Adaptation::stored(), the head's parameters last) other
  // values than their usual ones to start from; `started_from` tells such starts apart.
  std::function<void(const Parameters&)> start = {};
  std::string started_from = {};
  // An adapter's folder where a run before this one kept its state: this one goes on from there.
  std::filesystem::path resume = {};
  int stop_after = 0;  // epochs; the rates remain those of the whole run. 0: all of them
  // Where to keep the whole state in the end, beside the adapter that `at_best` saves there, and
  // what to write into it for whoever takes it up again.
  std::filesystem::path keep = {};
  std::string settings = {};
  // As at_best, in the type that the run computes in: what stands beside its scores.
  AtBest measure = {};
  // For rows of frozen blocks, which later epochs do not compute again. The bits are the same.
  std::size_t frozen_bytes = std::size_t{1} << 30;
};

// The base, which lies on the run's device, is as it was afterwards, bit for bit (checked). Throws
// where the loss is not finite, and where nothing would train.
RunResult finetune(Model& base, const EncodedTask&, const RunSpec&, const Methods&,
                   const AtBest& = {}, const RunPlaces& = {});

// The score of one split under the model as it stands, and the per-example values. A language
// task's loss is the mean over examples of the mean over the continuation's tokens, in nats.
struct Score {
  double metric = 0;  // turned (metrics.h): higher is better
  NamedScores also;   // of the same predictions; none of a language task
  std::vector<float> rows, predictions;
};
using RowsDone = std::function<void(std::size_t)>;  // how many, now and then
Score evaluate(Model&, const EncodedTask&, const std::vector<EncodedExample>&,
               FrozenRows* = nullptr, const RowsDone& = {});
// What predictions are made of: for each sequence of the batch its head's scores or, text to text,
// the log-likelihood of each answer. Not for language tasks.
std::vector<std::vector<double>> output_rows(const Model&, const EncodedTask&, const Batch&,
                                             FrozenRows* = nullptr);
// The same from blocks already run: what experiments that share partial forwards use.
Score score_predictions(const EncodedTask&, const std::vector<EncodedExample>&,
                        const std::vector<float>& predictions);
// Class (or value) of each sequence from a head's scores, or from output_rows(). Throws where one
// is not finite.
void append_predictions(const EncodedTask&, const Tensor& scores, std::vector<float>& into);
void append_predictions(const EncodedTask&, const std::vector<std::vector<double>>& rows,
                        std::vector<float>& into);

// The head a spec asks for, for this task; drawn at (spec.seed). head=family goes on from the
// model's own head where that tells the same labels. None for a language task or text to text: the
// scores come from the model's own vocabulary head, which methods leave frozen.
std::unique_ptr<Head> make_head(const EncodedTask&, const RunSpec&, const Model&);
// Why a model with that head cannot be handed back to transformers whole; empty where it can.
std::string why_not_handed_back(const RunSpec&, Goal);
// Where that head comes from, in words.
std::string head_in_words(const EncodedTask&, const RunSpec&, const Model&);

}  // namespace graft
