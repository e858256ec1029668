#include "experiments/ablations/adapter_layer_pruning.h"

#include <cmath>
#include <numeric>

#include "experiments/ablations/view.h"
#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"

namespace graft {
namespace {

constexpr int kWidth = 16;  // 2.2 % of a 192-wide base: the paper's 64 is 2.1 % of BERT-large
constexpr double kRate = 1e-3;
const char* const kAll = "adapters";
const std::vector<double> kDeviations{1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-1, 1};  // and 1e-2: kAll
const char* const kNorms = "norms only";
const char* const kSmallEps = "adapters, std 1e-07, Adam's eps 1e-08";

std::string adapters(const std::string& more = "") {
  return fmt::format("houlsby:m={}{}", kWidth, more);
}

std::string of_deviation(double std) {
  return std == 1e-2 ? kAll : fmt::format("adapters, std {:g}", std);
}
std::string of_top(int k, int layers) {
  return k == layers ? kAll : fmt::format("adapters, top {}", k);
}

std::vector<int> tops(int layers) {
  std::vector<int> all;
  for (int k : {1, 2, 3, layers / 2, 3 * layers / 4, layers})
    if (k >= 1 && (all.empty() || k > all.back())) all.push_back(k);
  return all;
}

// The table of the paper's own figures for one task's stand-in.
void add_reported(std::vector<PlannedArm>& arms, bool large) {
  const auto at = [&](const std::string& label) -> PlannedArm& {
    return *std::find_if(arms.begin(), arms.end(),
                         [&](const PlannedArm& a) { return a.label == label; });
  };
  const std::string model =
      large ? "BERT-base, MNLI-m, validation" : "BERT-large, CoLA, Matthews x 100";
  PlannedArm &full = at("full fine-tuning"), &adapted = at(kAll);
  full.paper = large ? "84.4 ± 0.02" : "60.5", full.paper_trained = "100 %",
  full.paper_model = model;
  adapted.paper = large ? "83.7 ± 0.1" : "56.9", adapted.paper_model = model;
  adapted.paper_trained = large ? "about 2 M" : "2.1 %";
}

std::vector<PlannedArm> arms_of(const Setup& s, const std::string& task) {
  std::vector<PlannedArm> arms = baseline_arms(s, task, adapters(), kRate);
  const auto add = [&](const std::string& label, const std::string& method, bool few,
                       const std::string& table) -> PlannedArm& {
    nlohmann::json config = arm_config(s, task, method);
    config["eps"] = 1e-6;
    arms.push_back({label, config, s.few ? "adapters" : label, kRate, few, table, label});
    return arms.back();
  };
  arms.back().config["eps"] = 1e-6;
  add(kAll, adapters(), true, "").config["measure"] = "spans";
  arms.back().shown = fmt::format("adapters, m={}, all layers, std 0.01", kWidth);
  for (int k : tops(s.layers))
    if (k < s.layers)
      add(of_top(k, s.layers), adapters(fmt::format(",layers=top{}", k)), k == 3,
          "only in the top layers");
  // Houlsby's norms train in every layer, also where there is no adapter: what they do by
  // themselves is the floor of these arms.
  arms.push_back({kNorms, arm_config(s, task, "layernorm"), kNorms, 3.16e-3, false,
                  "only in the top layers", kNorms});
  for (double std : kDeviations)
    add(of_deviation(std), adapters(fmt::format(",std={:g}", std)), std == 1e-7 || std == 1,
        "initial values");
  add(kSmallEps, adapters(",std=1e-07"), false, "initial values").config["eps"] = 1e-8;
  // The baselines are told first, then the rest: the subject stands second.
  std::rotate(arms.begin() + 1, arms.begin() + 6, arms.begin() + 7);
  add_reported(arms, task == s.tasks.front());
  return arms;
}

Claim claim_of(const std::string& id, const std::string& text, const std::string& paper) {
  return {.id = id,
          .text = text,
          .paper = paper,
          .parts = {},
          .regime = "full fine-tuning and adapters beat the baselines"};
}

void part(Statement& s, const std::string& label, const Test& test, std::vector<Weighed> pieces) {
  s.claim.parts.push_back({label, test});
  s.parts.push_back(std::move(pieces));
}

// How many points are lost when the adapters in `span` go.
std::vector<Weighed> drop(const std::string& task, const Span& span) {
  return {{task, kAll, 100}, {task, kAll, -100, name(span)}};
}

Statement on_average(const Setup& s) {
  Statement t{claim_of("T-H0",
                       "Adapters are within 1 point of full fine-tuning on " +
                           (s.tasks.size() > 1 ? "average." : s.tasks.front() + "."),
                       "GLUE average 80.0 against 80.4 (BERT-large)."),
              {},
              s.tasks};
  std::vector<Weighed> pieces;
  for (const std::string& task : s.tasks)
    for (Weighed p : difference(task, kAll, "full fine-tuning")) {
      p.weight /= static_cast<double>(s.tasks.size());
      pieces.push_back(p);
    }
  part(t, "adapters - full fine-tuning", {Test::Kind::equivalent, 1}, pieces);
  return t;
}

Statement single_layers(const Setup& s) {
  Statement t{
      claim_of("T-H1", "Taking out one layer's adapters costs at most 3 points, whichever it is.",
               "The largest drop on the diagonal of figure 6 is 2 %."),
      {},
      s.tasks};
  for (const std::string& task : s.tasks)
    for (int i = 0; i < s.layers; ++i)
      part(t, fmt::format("drop without layer {}, {}", i, task), {Test::Kind::below, 3},
           drop(task, {i, i}));
  return t;
}

Statement all_layers(const Setup& s) {
  Statement t{
      claim_of("T-H2",
               "Without any adapter the model scores about what the majority class does "
               "(within 2 points).",
               "All removed: 37 % on MNLI and 69 % on CoLA are left, the majority class's scores."),
      {},
      s.tasks};
  for (const std::string& task : s.tasks)
    part(t, "all removed - majority, " + task, {Test::Kind::equivalent, 2},
         {{task, kAll, 100, name(Span{0, s.layers - 1})}, {task, "majority", -100}});
  return t;
}

Statement lower_and_upper(const Setup& s) {
  const Span lower{0, 5 * s.layers / 12 - 1}, low{0, s.layers / 3 - 1},
      high{2 * s.layers / 3, s.layers - 1};
  const std::string& task = s.tasks.front();
  Statement t{
      claim_of("T-H3",
               "Lower layers' adapters matter little: taking out the lower five twelfths "
               "costs at most 1 point, and the upper third costs more than the lower third.",
               "Removing layers 0-4 of 12 barely changes MNLI."),
      {},
      {task}};
  part(t, fmt::format("drop without layers {}-{}", lower.first, lower.last), {Test::Kind::below, 1},
       drop(task, lower));
  part(t, fmt::format("drop {}-{} less drop {}-{}", high.first, high.last, low.first, low.last),
       {Test::Kind::above, 0}, {{task, kAll, 100, name(low)}, {task, kAll, -100, name(high)}});
  return t;
}

Statement initial_values(const Setup& s) {
  const std::string alike =
      "Initial deviations up to 0.01 score alike (within 1 point, our margin for noise); 0.1 and 1 "
      "score lower";
  Statement t{
      claim_of("T-H4", alike + (s.tasks.size() > 1 ? ", and more so on the small task." : "."),
               "Figure 6, right: flat up to 0.01, falling above it, more on CoLA than on MNLI."),
      {},
      s.tasks};
  for (const std::string& task : s.tasks) {
    for (double std : kDeviations) {
      const bool large = std > 1e-2;
      part(t, fmt::format("std 0.01 - std {:g}, {}", std, task),
           large ? Test{Test::Kind::above, 0} : Test{Test::Kind::equivalent, 1},
           difference(task, kAll, of_deviation(std)));
    }
  }
  if (s.tasks.size() > 1) {
    std::vector<Weighed> pieces = difference(s.tasks[1], kAll, of_deviation(1));
    for (Weighed p : difference(s.tasks[0], of_deviation(1), kAll)) pieces.push_back(p);
    part(t, fmt::format("fall at std 1, {} less {}", s.tasks[1], s.tasks[0]),
         {Test::Kind::above, 0}, pieces);
  }
  return t;
}

std::vector<Statement> claims_of(const Setup& s) {
  return {on_average(s), single_layers(s), all_layers(s), lower_and_upper(s), initial_values(s)};
}

const char* const kAccuracy = " accuracy";  // behind a span's name

double share_right(const std::vector<float>& rows) {
  return std::accumulate(rows.begin(), rows.end(), 0.0) / static_cast<double>(rows.size());
}

Measurement measurement_of(const Methods&) {
  return [](Model& model, Adaptation& adaptation, const EncodedTask& task, Run& run) {
    if (run.arm.config.value("measure", "") != "spans") return;
    const auto claimed = claimed_spans(model.arch().layers);
    for (const auto& [span, predictions] :
         predictions_without(model, adaptation, task, task.test)) {
      const Score score = score_predictions(task, task.test, predictions);
      run.metrics[name(span)] = score.metric;
      // What the pages and the claims are about, whatever the task's own metric is.
      if (task.metric != "accuracy") run.metrics[name(span) + kAccuracy] = share_right(score.rows);
      if (std::find(claimed.begin(), claimed.end(), span) != claimed.end())
        run.scores[name(span)] = score.rows;
    }
  };
}

// The accuracy on test, or with a span of adapters removed. None of a span without scores whose
// run, an older one, has it in another metric alone.
std::optional<double> accuracy_of(const Run& run, const std::string& set) {
  if (const auto at = run.scores.find(set); at != run.scores.end()) return share_right(at->second);
  if (const auto at = run.metrics.find(set + kAccuracy); at != run.metrics.end()) return at->second;
  const auto kept = run.metrics.find(set);
  if (kept == run.metrics.end() || !run.scores.contains("test")) return std::nullopt;
  const double gap = run.metrics.at("test") - share_right(run.scores.at("test"));
  return std::abs(gap) < 1e-9 ? std::optional(kept->second) : std::nullopt;
}

// Mean over the seeds' runs that have it; none where none has.
std::optional<double> accuracy_of(const View& view, const std::string& task, const std::string& arm,
                                  const std::string& set = "test") {
  std::vector<double> values;
  for (const auto& [seed, run] : view.runs(task, arm))
    if (const auto value = accuracy_of(*run, set)) values.push_back(*value);
  return values.empty() ? std::nullopt : std::optional(mean(values));
}

// 100 x the relative drop for each span, first layer down, last layer across.
void heat_map(Page& page, const View& view, const std::string& task,
              const std::filesystem::path& stem) {
  const auto all = accuracy_of(view, task, kAll);
  const int layers = view.setup().layers;
  if (!all || *all <= 0 || !accuracy_of(view, task, kAll, name(Span{0, 0}))) return;
  HeatMap map{"Adapters of layers first to last removed, " + task,
              "last layer removed",
              "first layer removed",
              "drop, % of the accuracy",
              {},
              {},
              {}};
  for (int first = 0; first < layers; ++first) {
    map.rows.push_back(std::to_string(first));
    map.columns.push_back(std::to_string(first));
    map.cells.emplace_back();
    for (int last = 0; last < layers; ++last) {
      const auto kept = accuracy_of(view, task, kAll, name(Span{first, last}));
      map.cells.back().push_back(kept ? 100 * (*all - *kept) / *all : std::nan(""));
    }
  }
  const bool large = task == view.setup().tasks.front();
  page.figure(
      draw(map, stem.string() + "-spans-" + task),
      fmt::format("Relative drop of test accuracy on {} when the adapters of a span of layers are "
                  "switched off after training, without training again; mean over {} seed(s). "
                  "The diagonal is single layers, the upper right corner all of them. Paper, "
                  "figure 6 (BERT-base, m=64, {}): at most 2 % on the diagonal; with all removed "
                  "the score falls to {} %, the majority class's (section 3.6).",
                  task, view.runs(task, kAll).size() - view.diverged(task, kAll).size(),
                  large ? "MNLI" : "CoLA", large ? 37 : 69));
}

// What is left of the adaptation when all adapters are gone, against two floors.
void floors(Page& page, const View& view) {
  Table table{
      "All adapters removed: the head and the norms that trained beside them stay; accuracy, %",
      {{"task", "", false},
       {"adapted", "", true},
       {"all removed", "", true},
       {"majority", "", true},
       {"head only", "", true},
       {"drop / (adapted - majority)", "", true},
       {"drop / (adapted - head only)", "", true}},
      {}};
  for (const std::string& task : view.setup().tasks) {
    const auto all = accuracy_of(view, task, kAll), majority = accuracy_of(view, task, "majority"),
               head = accuracy_of(view, task, "head only"),
               bare = accuracy_of(view, task, kAll, name(Span{0, view.setup().layers - 1}));
    if (!all || !majority || !head || !bare) continue;
    const auto share = [&](double floor) {
      return *all > floor ? fmt::format("{:.2f}", (*all - *bare) / (*all - floor)) : "–";
    };
    table.rows.push_back({task, fmt::format("{:.1f}", 100 * *all),
                          fmt::format("{:.1f}", 100 * *bare),
                          fmt::format("{:.1f}", 100 * *majority),
                          fmt::format("{:.1f}", 100 * *head), share(*majority), share(*head)});
  }
  if (!table.rows.empty()) page.table(table);
}

void line(Page& page, const View& view, const std::string& x_label, bool log_x,
          const std::vector<std::pair<double, std::string>>& levels,
          const std::filesystem::path& stem, const std::string& caption,
          const std::vector<std::string>& baselines = {"full fine-tuning"}) {
  LinePlot plot{x_label, log_x, {"this experiment", "accuracy, %", {}, {}}, std::nullopt};
  for (const std::string& task : view.setup().tasks) {
    Series series{task, {}};
    for (const auto& [x, arm] : levels)
      if (const auto m = view.points(task, arm)) series.points.push_back({x, m->mean, m->interval});
    if (series.points.size() < 2) continue;  // no curve: a short run has few of the arms
    plot.ours.series.push_back(series);
    for (const std::string& arm : baselines)
      if (const auto m = view.points(task, arm))
        plot.ours.baselines.push_back({arm + ", " + task, m->mean, m->interval});
  }
  if (!plot.ours.series.empty()) page.figure(draw(plot, stem), caption);
}

void figures_of(Page& page, const View& view, const std::filesystem::path& stem) {
  for (const std::string& task : view.setup().tasks) heat_map(page, view, task, stem);
  floors(page, view);
  std::vector<std::pair<double, std::string>> deviations, layers;
  for (double std : {1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.})
    deviations.push_back({std, of_deviation(std)});
  for (int k : tops(view.setup().layers)) layers.push_back({k, of_top(k, view.setup().layers)});
  line(page, view, "standard deviation of the initial weights", true, deviations,
       stem.string() + "-initial",
       "Test accuracy against the deviation of the adapters' initial weights, with 95 % intervals "
       "(Adam's eps 1e-6, as in the paper's code). Paper, figure 6 right: flat up to 0.01, falling "
       "above "
       "it, more on CoLA than on MNLI.");
  line(
      page, view, "adapters in the top k layers", false, layers, stem.string() + "-top",
      "Test accuracy with adapters in the top k layers only, with 95 % intervals. The norms of all "
      "layers train in every one of these arms, as in the paper; by themselves they are the floor.",
      {"full fine-tuning", kNorms});
}

}  // namespace

Experiment adapter_layer_pruning() {
  return {
      .name = "adapter_layer_pruning",
      .title = "Adapters removed layer by layer",
      .paper =
          "Houlsby et al. 2019, 'Parameter-Efficient Transfer Learning for NLP' (1902.00751), "
          "figure 6 and section 3.6",
      .question =
          "Which layers' adapters does a tuned model need? What happens when they are taken "
          "out again, and how much do their initial values matter?",
      .tasks = {"supersense", "topic"},
      .subject = kAll,
      .remarks =
          {"The paper's tasks are MNLI and CoLA; topic stands in for a small task like CoLA or "
           "RTE.",
           kForMnli,
           "A full run tunes every arm for itself, with equal trials; in a short run all arms with "
           "adapters use the rate of adapters in all layers with initial deviation 0.01. Adam's "
           "eps is 1e-6 in the arms with adapters, as in the paper's code, unless one says "
           "otherwise, and 1e-8 in the others."},
      .arms = arms_of,
      .claims = claims_of,
      .measurement = measurement_of,
      .figures = figures_of,
      .not_on_text =
          "adapters are taken out layer by layer of one stack, and it has two; give an "
          "encoder or a decoder"};
}

}  // namespace graft
