// An experiment as data: its arms, its claims and the figures of its own. runner.h runs any of
// them, report.h writes the page of any of them.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "experiments/ablations/lab.h"
#include "experiments/ablations/scale.h"
#include "experiments/ablations/task_metric.h"
#include "experiments/harness/verdict.h"

namespace graft {

class Page;
class View;

// What the arms of one run are made of.
struct Setup {
  std::string base = "encoder";    // a base's name or a model folder
  std::string weights;             // its hash: results of two bases are never mixed
  std::vector<std::string> tasks;  // the first is the large or harder one
  Scale scale = quick_scale();
  bool few = true;                   // only the arms that a short run has time for
  int layers = 0, width = 0;         // of the base; of an encoder-decoder its encoder's
  bool text = false;                 // the base is an encoder-decoder, which answers in text
  std::string decoder = "";          // the causal base of language tasks; "": they are off
  std::string decoder_weights = "";  // its hash
  int decoder_width = 0;
  // Where all is computed and in what type models train; results of two are never mixed. Floors and
  // features, which train no model, are f32.
  Computing where = {};
  std::string about = "";    // what the base's folder says of it in about.txt, for the page
  TaskMetrics metrics = {};  // not in json()

  // As its runs say, or else the task itself. Throws where neither is there.
  bool is_language(const std::string& task) const;

  // The same bases, as far as both have them.
  bool same_bases(const Setup& other) const;
  nlohmann::json json() const;
  static Setup from(const nlohmann::json&);  // throws naming what is missing or wrong
};

// One row of a table: a configuration without its learning rate.
struct PlannedArm {
  std::string label;       // names it within its task, in claims and in other set-ups
  nlohmann::json config;   // as in lab.h
  std::string group;       // arms of one group share a rate, tuned on their `leads`, or else their
                           // first; "": it has no rate
  double middle = 0;       // of the grid of rates
  bool few = false;        // also in short runs
  std::string table = {};  // the table it stands in; "": the baselines, which stand in every table
  std::string shown = {};  // what the table says in place of the label
  std::string paper = "", paper_trained = "", paper_model = "";
  bool leads = false;
};

// A weighted mean score of one arm on one task's test examples.
struct Weighed {
  std::string task, arm;
  double weight = 100;       // points
  std::string set = "test";  // which scores of the run
};

// A claim whose every part is a contrast of arms.
struct Statement {
  Claim claim;
  std::vector<std::vector<Weighed>> parts;  // one contrast for each part of the claim
  std::vector<std::string> tasks;  // it means something only where these are in their regime
};

struct Experiment {
  std::string name;  // of its program, folder and records
  std::string title;
  std::string paper;
  std::string question;
  std::vector<std::string> tasks;    // the standard ones
  std::string subject;               // label of the arm that stands for the method
  std::vector<std::string> remarks;  // what a reader must know: stand-ins, choices of ours

  // The arms of one task, the most telling ones first.
  std::vector<PlannedArm> (*arms)(const Setup&, const std::string& task);
  std::vector<Statement> (*claims)(const Setup&);
  // Further measurements, on arms whose configuration has "measure".
  Measurement (*measurement)(const Methods&) = [](const Methods&) { return Measurement(); };
  // Figures and tables beyond the table of arms; `stem` begins the names of the figures' files.
  void (*figures)(Page&, const View&, const std::filesystem::path& stem);
  // Standard tasks that are on where there is a causal base, and their arm that stands for the
  // method.
  std::vector<std::string> language_tasks = {};
  std::string language_subject = "";
  bool in_main = true;           // `graft main` runs a part of it
  std::string not_on_text = "";  // why the base cannot be an encoder-decoder
};

std::vector<Experiment> all_experiments();
const Experiment& experiment_named(const std::vector<Experiment>&, const std::string& name);

// The baselines of every table: majority, bag of words, features, base_floor(), full fine-tuning,
// and `method` on a base of the same shape that was never trained.
std::vector<PlannedArm> baseline_arms(const Setup&, const std::string& task,
                                      const std::string& method, double middle);
// What adapting must beat of the base alone: "head only" or, where the base answers in text and so
// has no head, "nothing trained".
std::string base_floor(const Setup&);
// What tables say behind a method whose base was never trained.
extern const char* const kOnRandom;
// What a page says of the task that stands in for MNLI.
extern const char* const kForMnli;
// {base, task, rows, method, epochs, batch}.
nlohmann::json arm_config(const Setup&, const std::string& task, const std::string& method);
// By how many points adapting must beat bag of words for a task to carry claims.
double margin_over_words(const std::string& task);
// b subtracted from a, in points.
std::vector<Weighed> difference(const std::string& task, const std::string& a,
                                const std::string& b);

}  // namespace graft
