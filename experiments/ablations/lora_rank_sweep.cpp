#include "experiments/ablations/lora_rank_sweep.h"

#include "experiments/ablations/lora_rank_language.h"
#include "experiments/ablations/view.h"
#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"
#include "nn/models/folder.h"

namespace graft {
namespace {

constexpr double kRate = 3.16e-3;
constexpr int kPaperWidth = 12288, kPaperLayers = 96;
constexpr double kPaperParameters = 175255.8e6;  // as the paper counts GPT-3
const std::vector<int> kRanks{1, 2, 4, 8, 64};

struct Set {
  std::string on;
  int matrices;
  std::vector<double> mnli;  // table 6, by rank
};
const std::vector<Set> kSets{{"q+v", 2, {91.3, 91.4, 91.3, 91.6, 91.4}},
                             {"q", 1, {90.7, 90.9, 91.1, 90.7, 90.7}},
                             {"q+k+v+o", 4, {91.2, 91.7, 91.7, 91.5, 91.4}}};

struct Policy {
  std::string id, text;
  std::string (*options)(int r);
};
// At r = 4 the first two are one configuration; "scale=plain", the standard, keeps them two runs,
// each with its policy's own rate.
const std::vector<Policy> kPolicies{
    {"fixed", "alpha = 8", [](int) { return std::string("alpha=8"); }},
    {"2r", "alpha = 2r", [](int r) { return fmt::format("alpha={},scale=plain", 2 * r); }},
    {"rs", "alpha = 8, divided by sqrt(r)", [](int) { return std::string("alpha=8,scale=rs"); }}};

std::string label(const std::string& on, int r, const Policy& p) {
  return fmt::format("LoRA on {}, r={}, {}", on, r, p.text);
}
std::string method(const std::string& on, int r, const Policy& p) {
  return fmt::format("lora:r={},on={},{}", r, on, p.options(r));
}

// The paper varies the matrices with alpha fixed; how alpha follows the rank is looked at on one.
bool is_run(const Set& set, const Policy& p) { return p.id == "fixed" || set.on == "q+v"; }

bool in_short_run(const Set& set, int r, const Policy& p) {
  if (set.on == "q+v") return p.id == "fixed" ? r == 1 || r >= 8 : r == 64;
  return set.on == "q" && p.id == "fixed" && (r == 1 || r == 8);
}

PlannedArm arm_of(const Setup& s, const std::string& task, const Set& set, std::size_t rank,
                  const Policy& p) {
  const int r = kRanks[rank];
  PlannedArm arm{label(set.on, r, p),
                 arm_config(s, task, method(set.on, r, p)),
                 s.few ? "LoRA" : label(set.on, r, p),
                 kRate,
                 in_short_run(set, r, p),
                 p.text,
                 fmt::format("{}, r={} (r/d {:.2g})", set.on, r, double(r) / s.width)};
  // In a short run all take the rate of q and v with r = 8 and alpha fixed.
  arm.leads = r == 8 && set.on == "q+v" && p.id == "fixed";
  if (set.on == "q+v" && r == 8 && p.id == "fixed") arm.config["measure"] = "merge";
  if (p.id != "fixed") return arm;  // the paper does not vary alpha with r
  arm.paper = fmt::format("{:.1f} ± 0.1", set.mnli[rank]);
  arm.paper_trained = fmt::format(
      "{:.2g} %", 100.0 * kPaperLayers * set.matrices * 2 * kPaperWidth * r / kPaperParameters);
  arm.paper_model = fmt::format("GPT-3, MNLI-m, r/d {:.2g}", double(r) / kPaperWidth);
  return arm;
}

std::vector<PlannedArm> arms_of(const Setup& s, const std::string& task) {
  if (s.is_language(task)) return language_arms(s, task);
  std::vector<PlannedArm> arms;
  for (const Policy& p : kPolicies)
    for (const Set& set : kSets)
      for (std::size_t i = 0; is_run(set, p) && i < kRanks.size(); ++i)
        arms.push_back(arm_of(s, task, set, i, p));
  std::vector<PlannedArm> baselines = baseline_arms(s, task, method("q+v", 8, kPolicies[0]), kRate);
  baselines[0].paper = "89.5", baselines[0].paper_trained = "100 %";
  baselines[0].paper_model = "GPT-3, MNLI-m";
  arms.insert(arms.begin(), baselines.begin(), baselines.end());
  return arms;
}

std::vector<Statement> class_claims(const std::string& task) {
  const std::string regime = "full fine-tuning and LoRA beat the baselines";
  Statement best{{.id = "T-L0",
                  .text = "LoRA (q and v, r=8) is as good as full fine-tuning or better, within "
                          "1 point (our margin for noise).",
                  .paper = "RoBERTa-base, GLUE average: 87.2 against 86.4.",
                  .parts = {{"LoRA - full fine-tuning", {Test::Kind::above, -1}}},
                  .regime = regime},
                 {difference(task, label("q+v", 8, kPolicies[0]), "full fine-tuning")},
                 {task}};
  std::vector<Statement> all{best};
  for (const Policy& p : kPolicies) {
    Statement flat{
        {.id = "T-L3-" + p.id,
         .text = fmt::format("On q and v, ranks 1 to 64 score alike (within 1 point of r=8, our "
                             "margin for noise), with {}.",
                             p.text),
         .paper = p.id == "fixed" ? "MNLI, r = 1, 2, 4, 8, 64: 91.3, 91.4, 91.3, 91.6, 91.4." : "",
         .parts = {},
         .regime = regime},
        {},
        {task}};
    for (int r : {1, 2, 4, 64}) {
      flat.claim.parts.push_back({fmt::format("r={} - r=8", r), {Test::Kind::equivalent, 1}});
      flat.parts.push_back(difference(task, label("q+v", r, p), label("q+v", 8, p)));
    }
    all.push_back(flat);
  }
  Statement exact{
      {.id = "T-L9-exact",
       .text = "An untrained update (B = 0) leaves every output as it was, bit for bit, and "
               "merging and unmerging the trained one gives the same bits back.",
       .paper = "B = 0 at the start, so the update begins at zero (section 4.1).",
       .parts = {{"examples changed by B = 0", {Test::Kind::none}},
                 {"examples changed by merge and unmerge", {Test::Kind::none}}},
       .unit = "% of the examples",
       .regime = ""},
      {},
      {}};
  const std::string measured = label("q+v", 8, kPolicies[0]);
  exact.parts = {{{task, measured, 100, "changed by B = 0"}},
                 {{task, measured, 100, "changed by unmerge"}}};
  all.push_back(exact);
  return all;
}

// By the first task of each kind.
std::vector<Statement> claims_of(const Setup& s) {
  std::vector<Statement> all;
  for (const bool language : {false, true})
    for (const std::string& task : s.tasks) {
      if (s.is_language(task) != language) continue;
      for (Statement& one : language ? language_claims(task) : class_claims(task))
        all.push_back(std::move(one));
      break;
    }
  return all;
}

// The scores behind the predictions for every test example, as bits.
std::vector<std::vector<double>> outputs(Model& model, const EncodedTask& task) {
  NoRecord off;
  std::vector<std::vector<double>> rows;
  std::vector<std::int32_t> order(task.test.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(i);
  for (std::size_t at = 0; at < order.size(); at += 64) {
    const Batch batch =
        make_batch(task, task.test, order, at, std::min<std::size_t>(64, order.size() - at));
    for (auto& row : output_rows(model, task, batch)) rows.push_back(std::move(row));
  }
  return rows;
}

Measurement measurement_of(const Methods& methods) {
  return [methods](Model& model, Adaptation& adaptation, const EncodedTask& task, Run& run) {
    if (run.arm.config.value("measure", "") != "merge") return;
    const auto before = outputs(model, task);
    const auto changed = [&](const std::vector<std::vector<double>>& now) {
      std::vector<float> rows;
      for (std::size_t i = 0; i < now.size(); ++i) rows.push_back(now[i] == before[i] ? 0.f : 1.f);
      return rows;
    };
    {
      const Adaptation fresh(methods, run.arm.config.at("method"),
                             model);  // a second one, with B = 0
      run.scores["changed by B = 0"] = changed(outputs(model, task));
    }
    adaptation.merge();
    const auto merged = outputs(model, task);
    adaptation.unmerge();
    run.scores["changed by unmerge"] = changed(outputs(model, task));
    double most = 0, largest = 0;
    for (std::size_t i = 0; i < merged.size(); ++i)
      for (std::size_t j = 0; j < merged[i].size(); ++j) {
        most = std::max(most, std::abs(merged[i][j] - before[i][j]));
        largest = std::max(largest, std::abs(before[i][j]));
      }
    run.metrics["merged differs by"] = largest > 0 ? most / largest : 0;
  };
}

void rank_figure(Page& page, const View& view, const std::string& task, const Policy& p,
                 const std::filesystem::path& stem) {
  LinePlot plot{"rank r", true, {p.text + ", " + task, "accuracy, %", {}, {}}, std::nullopt};
  Panel paper{"paper: GPT-3, MNLI-m, table 6", "accuracy, %", {}, {}};
  for (const Set& set : kSets) {
    Series series{set.on, {}}, reported{set.on, {}};
    for (std::size_t i = 0; i < kRanks.size(); ++i) {
      reported.points.push_back({double(kRanks[i]), set.mnli[i], std::nullopt});
      if (const auto m = view.points(task, label(set.on, kRanks[i], p)))
        series.points.push_back({double(kRanks[i]), m->mean, m->interval});
    }
    if (!series.points.empty()) plot.ours.series.push_back(series);
    paper.series.push_back(reported);
  }
  // One rank is no curve: a short run has only that for some policies.
  if (std::none_of(plot.ours.series.begin(), plot.ours.series.end(),
                   [](const Series& one) { return one.points.size() > 1; }))
    return;
  if (const auto m = view.points(task, "full fine-tuning"))
    plot.ours.baselines.push_back({"full fine-tuning", m->mean, m->interval});
  if (p.id == "fixed") plot.paper = paper;
  page.figure(
      draw(plot, fmt::format("{}-{}-{}", stem.string(), p.id, task)),
      fmt::format(
          "Test accuracy on {} against the rank, {}, with 95 % intervals.{} r=1 at width {} "
          "is the share of the width that r={} is of GPT-3's.",
          task, p.text, plot.paper ? " Right: the paper's own figures." : "", view.setup().width,
          kPaperWidth / view.setup().width));
}

// The most over all runs, since the page says "at most"; none where it was not measured.
std::optional<double> most_merged(const View& view, const std::string& task) {
  std::optional<double> most;
  for (const auto& [seed, run] : view.runs(task, label("q+v", 8, kPolicies[0])))
    if (const auto at = run->metrics.find("merged differs by"); at != run->metrics.end())
      most = std::max(most.value_or(0), at->second);
  return most;
}

void figures_of(Page& page, const View& view, const std::filesystem::path& stem) {
  bool language = false, told = false;
  for (const std::string& task : view.setup().tasks) {
    if (view.setup().is_language(task)) {
      language_figure(page, view, task, stem);
      language = true;
      continue;
    }
    for (const Policy& p : kPolicies) rank_figure(page, view, task, p, stem);
    const std::optional<double> merged = most_merged(view, task);
    if (merged && !told)
      page.paragraph(fmt::format(
          "Merged into the base's matrices, the update (q+v, r=8) changes the scores by at "
          "most {:.1e} of the largest: rounding.",
          *merged));
    told = told || merged;
  }
  if (!language) page.paragraph(language_is_off(view.setup()));
}

}  // namespace

Experiment lora_rank_sweep() {
  return {
      .name = "lora_rank_sweep",
      .title = "How much rank LoRA needs",
      .paper =
          "Hu et al. 2021, 'LoRA: Low-Rank Adaptation of Large Language Models' (2106.09685), "
          "tables 6 and 18",
      .question =
          "Does a larger rank help, on which matrices, and does the answer depend on how the "
          "update is scaled as the rank grows?",
      .tasks = {"supersense"},
      .subject = label("q+v", 8, kPolicies[0]),
      .remarks =
          {"The paper's tasks are WikiSQL, MNLI and, with GPT-2, E2E, for which defgen (a word -> "
           "its "
           "definition) with a causal base stands in.",
           kForMnli,
           "The paper keeps alpha fixed (at the first r tried: 8 here), which scales the update "
           "by 8/r. On q+v two more policies keep alpha/r fixed (alpha = 2r) or divide by sqrt(r). "
           "With language modelling alpha is 32, the paper's for GPT-2.",
           "A full run tunes every arm for itself, with equal trials; a short run tunes q+v, "
           "r=8, with alpha fixed and uses its rate for all.",
           "The share of trained parameters does not count the task's head."},
      .arms = arms_of,
      .claims = claims_of,
      .measurement = measurement_of,
      .figures = figures_of,
      .language_tasks = {"defgen"},
      .language_subject = language_subject()};
}

}  // namespace graft
