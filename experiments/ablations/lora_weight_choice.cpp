#include "experiments/ablations/lora_weight_choice.h"

#include "experiments/ablations/view.h"
#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"

namespace graft {
namespace {

constexpr double kRate = 3.16e-3;

// A row of the paper's table 5: GPT-3 175B, 18 M parameters, WikiSQL and MNLI-m.
struct Choice {
  std::string on;
  int r;
  bool few;
  double wikisql, mnli;
};
const std::vector<Choice> kChoices{{"q", 8, true, 70.4, 91.0},      {"k", 8, false, 70.0, 90.8},
                                   {"v", 8, true, 73.0, 91.0},      {"o", 8, false, 73.2, 91.3},
                                   {"q+k", 4, true, 71.4, 91.3},    {"q+v", 4, true, 73.7, 91.3},
                                   {"q+k+v+o", 2, true, 73.7, 91.7}};

std::string label(const std::string& on) { return "LoRA on " + on; }

std::vector<PlannedArm> arms_of(const Setup& s, const std::string& task) {
  std::vector<PlannedArm> arms;
  for (const Choice& c : kChoices) {
    const std::string method = fmt::format("lora:r={},alpha={},on={}", c.r, 2 * c.r, c.on);
    arms.push_back({label(c.on), arm_config(s, task, method), s.few ? "lora" : label(c.on), kRate,
                    c.few, "one budget", fmt::format("{}, r={}", label(c.on), c.r),
                    fmt::format("{:.1f} ± 0.1", c.mnli), "0.011 %", "GPT-3, MNLI-m"});
  }
  std::rotate(arms.begin(), arms.begin() + 5, arms.begin() + 6);  // q+v, the subject, first
  const std::string method = "lora:r=4,alpha=8,on=q+v";
  std::vector<PlannedArm> baselines = baseline_arms(s, task, method, kRate);
  baselines[0].paper = "89.5", baselines[0].paper_trained = "100 %";
  baselines[0].paper_model = "GPT-3, MNLI-m";
  arms.insert(arms.begin() + 1, baselines.begin(), baselines.end());
  return arms;
}

Statement statement(const Setup& s, const std::string& id, const std::string& text,
                    const std::string& paper) {
  return {{.id = id,
           .text = text,
           .paper = paper,
           .parts = {},
           .regime = "full fine-tuning and LoRA beat the baselines"},
          {},
          {s.tasks.front()}};
}

void part(Statement& s, const std::string& name, const Test& test, std::vector<Weighed> pieces) {
  s.claim.parts.push_back({name, test});
  s.parts.push_back(std::move(pieces));
}

std::vector<Statement> claims_of(const Setup& s) {
  const std::string& task = s.tasks.front();
  Statement a =
      statement(s, "T-L2a", "At one budget all four matrices score higher than any single one.",
                "73.7 against 70.4, 70.0, 73.0, 73.2 on WikiSQL; 91.7 against 91.0, 90.8, "
                "91.0, 91.3 on MNLI.");
  Statement b = statement(s, "T-L2b",
                          "q and v together score as high as the best single matrix or higher, "
                          "within 1 point (our margin for noise).",
                          "73.7 against 73.2 on WikiSQL; 91.3 against 91.3 on MNLI.");
  for (const char* single : {"q", "k", "v", "o"}) {
    part(a, fmt::format("q+k+v+o - {}", single), {Test::Kind::above, 0},
         difference(task, label("q+k+v+o"), label(single)));
    part(b, fmt::format("q+v - {}", single), {Test::Kind::above, -1},
         difference(task, label("q+v"), label(single)));
  }
  Statement c = statement(s, "T-L2c", "v and o are worth more than q and k.",
                          "Means 73.1 against 70.2 on WikiSQL, 91.15 against 90.9 on MNLI.");
  part(c, "mean of v, o - mean of q, k", {Test::Kind::above, 0},
       {{task, label("v"), 50},
        {task, label("o"), 50},
        {task, label("q"), -50},
        {task, label("k"), -50}});
  Statement d =
      statement(s, "T-L2d", "q and v together score higher than q and k on the harder task.",
                "73.7 against 71.4 on WikiSQL; 91.3 and 91.3 on MNLI.");
  part(d, "q+v - q+k", {Test::Kind::above, 0}, difference(task, label("q+v"), label("q+k")));
  return {a, b, c, d};
}

void figures_of(Page& page, const View& view, const std::filesystem::path& stem) {
  GroupPlot plot{
      "matrices with LoRA, at one budget",
      {},
      false,
      {"this experiment", "accuracy, %", {}, {}},
      Panel{"paper: GPT-3 175B, table 5", "accuracy, %", {{"WikiSQL", {}}, {"MNLI-m", {}}}, {}}};
  for (std::size_t i = 0; i < kChoices.size(); ++i) {
    plot.groups.push_back(kChoices[i].on);
    plot.paper->series[0].points.push_back({double(i), kChoices[i].wikisql, std::nullopt});
    plot.paper->series[1].points.push_back({double(i), kChoices[i].mnli, std::nullopt});
  }
  for (const std::string& task : view.setup().tasks) {
    Series series{task, {}};
    for (std::size_t i = 0; i < kChoices.size(); ++i)
      if (const auto m = view.points(task, label(kChoices[i].on)))
        series.points.push_back({double(i), m->mean, m->interval});
    if (!series.points.empty()) plot.ours.series.push_back(series);
    if (const auto m = view.points(task, "full fine-tuning"))
      plot.ours.baselines.push_back({"full fine-tuning, " + task, m->mean, m->interval});
  }
  if (!plot.ours.series.empty())
    page.figure(
        draw(plot, stem.string() + "-choice"),
        "Test accuracy with 95 % intervals: rank 8 on one matrix, 4 on two, 2 on four. Right: the "
        "paper's own figures (noise ± 0.5 on WikiSQL, ± 0.1 on MNLI).");
}

}  // namespace

Experiment lora_weight_choice() {
  return {.name = "lora_weight_choice",
          .title = "Which matrices LoRA should adapt",
          .paper =
              "Hu et al. 2021, 'LoRA: Low-Rank Adaptation of Large Language Models' (2106.09685), "
              "table 5",
          .question =
              "With one budget of trainable parameters, is it better to give one matrix a high "
              "rank or several a low one, and which?",
          .tasks = {"supersense"},
          .subject = label("q+v"),
          .remarks =
              {"The paper's tasks are WikiSQL and MNLI.", kForMnli,
               "alpha is 2 r in every arm, so that all updates are scaled by 2. A full run tunes "
               "every choice of matrices for itself, with equal trials; a short run tunes q+v and "
               "uses its rate for all.",
               "The share of trained parameters does not count the task's head."},
          .arms = arms_of,
          .claims = claims_of,
          .figures = figures_of};
}

}  // namespace graft
