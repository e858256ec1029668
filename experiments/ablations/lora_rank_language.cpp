#include "experiments/ablations/lora_rank_language.h"

#include "experiments/ablations/view.h"
#include "experiments/harness/page.h"
#include "experiments/harness/plot.h"

namespace graft {
namespace {

constexpr double kRate = 1e-3;
constexpr int kAlpha = 32;  // the paper's for GPT-2, whatever the rank
constexpr int kPaperWidth = 1024, kPaperLayers = 24;
constexpr double kPaperParameters = 354.9e6;
// Nats per token. The paper's loss falls by 0.07 from r=1 to r=16 and then moves by 0.01 at most:
// twice that is called no change.
constexpr double kFlat = 0.02;

const std::vector<int> kRanks{1, 2, 4, 8, 16, 64};
const std::vector<double> kPaperLoss{1.23, 1.21, 1.18, 1.17, 1.16, 1.16};  // table 18, q and v
const std::vector<std::string> kSets{"q+v", "q", "q+k+v+o"};

std::string label(const std::string& on, int r) {
  return fmt::format("LoRA on {}, r={}, alpha = {}", on, r, kAlpha);
}
std::string method(const std::string& on, int r) {
  return fmt::format("lora:r={},on={},alpha={}", r, on, kAlpha);
}

bool in_short_run(const std::string& on, int r) {
  if (on == "q+v") return r != 2;
  return on == "q" && (r == 1 || r == 4);
}

nlohmann::json config_of(const Setup& s, const std::string& task, const std::string& method) {
  nlohmann::json config = arm_config(s, task, method);
  config["base"] = s.decoder;
  return config;
}

PlannedArm arm_of(const Setup& s, const std::string& task, const std::string& on,
                  std::size_t rank) {
  const int r = kRanks[rank];
  PlannedArm arm{label(on, r),
                 config_of(s, task, method(on, r)),
                 s.few ? "LoRA" : label(on, r),
                 kRate,
                 in_short_run(on, r),
                 fmt::format("LoRA, alpha = {}", kAlpha),
                 fmt::format("{}, r={} (r/d {:.2g})", on, r, double(r) / s.decoder_width)};
  arm.leads = r == 8 && on == "q+v";  // in a short run the rate of all is tuned there
  if (on != "q+v") return arm;        // the paper's sweep adapts q and v
  arm.paper = fmt::format("{:.2f}", kPaperLoss[rank]);
  arm.paper_trained =
      fmt::format("{:.2g} %", 100.0 * kPaperLayers * 2 * 2 * kPaperWidth * r / kPaperParameters);
  arm.paper_model =
      fmt::format("GPT-2 medium, E2E, validation, r/d {:.2g}", double(r) / kPaperWidth);
  return arm;
}

std::vector<PlannedArm> baselines(const Setup& s, const std::string& task) {
  const auto untrained = [&](const std::string& name) {
    nlohmann::json config = config_of(s, task, name);
    config.erase("epochs"), config.erase("batch");
    return config;
  };
  nlohmann::json random = config_of(s, task, method("q+v", 8));
  random["base"] = s.decoder + "@random";
  return {{"full fine-tuning", config_of(s, task, "full"), "full", 3.16e-4, true, "",
           "full fine-tuning"},
          {"unigram", untrained("unigram"), "", 0, true, "", "unigram model of the continuations"},
          {"nothing trained", untrained("frozen"), "", 0, true, "", "the base, nothing trained"},
          {"the method on a random base", random, "random base", kRate, true, "",
           method("q+v", 8) + kOnRandom}};
}

// How much higher a's loss is than b's, in nats.
std::vector<Weighed> higher(const std::string& task, const std::string& a, const std::string& b) {
  return {{task, a, 1}, {task, b, -1}};
}

Statement statement(const std::string& task, const std::string& id, const std::string& text,
                    const std::string& paper) {
  return {{.id = id,
           .text = text,
           .paper = paper,
           .parts = {},
           .unit = "nats per token",
           .regime = "full fine-tuning and LoRA have a lower loss than the unigram model, the base "
                     "with nothing trained, and LoRA on a random base"},
          {},
          {task}};
}

void add(Statement& s, const std::string& on, int a, int b, const Test& test) {
  s.claim.parts.push_back({fmt::format("loss at r={} - at r={}", a, b), test});
  s.parts.push_back(higher(s.tasks.front(), label(on, a), label(on, b)));
}

}  // namespace

std::string language_subject() { return label("q+v", 8); }

std::vector<PlannedArm> language_arms(const Setup& s, const std::string& task) {
  std::vector<PlannedArm> arms = baselines(s, task);
  for (const std::string& on : kSets)
    for (std::size_t i = 0; i < kRanks.size(); ++i) arms.push_back(arm_of(s, task, on, i));
  return arms;
}

std::vector<Statement> language_claims(const std::string& task) {
  Statement falls = statement(
      task, "T-L9",
      fmt::format("On q and v the loss falls up to r of about 16 (r=1 above r=4, r=4 above r=16) "
                  "and then stays (r=64 within {} of r=16, our margin).",
                  kFlat),
      "GPT-2 medium on E2E, validation loss for r = 1, 2, 4, 8, 16, 64: 1.23, 1.21, 1.18, 1.17, "
      "1.16, 1.16.");
  add(falls, "q+v", 1, 4, {Test::Kind::above, 0});
  add(falls, "q+v", 4, 16, {Test::Kind::above, 0});
  add(falls, "q+v", 64, 16, {Test::Kind::equivalent, kFlat});
  Statement alone = statement(
      task, "T-L3-q",
      fmt::format("On q alone a rank of 4 is needed (r=1 and r=2 have a higher loss) and is enough "
                  "(r=64 within {} of r=4, our margin).",
                  kFlat),
      "WikiSQL, q alone, accuracy for r = 1, 2, 4, 8, 64: 68.8, 69.6, 70.5, 70.4, 70.0. On MNLI q "
      "alone is flat.");
  add(alone, "q", 1, 4, {Test::Kind::above, 0});
  add(alone, "q", 2, 4, {Test::Kind::above, 0});
  add(alone, "q", 64, 4, {Test::Kind::equivalent, kFlat});
  return {falls, alone};
}

void language_figure(Page& page, const View& view, const std::string& task,
                     const std::filesystem::path& stem) {
  LinePlot plot{"rank r",
                true,
                {fmt::format("{}, alpha = {}", task, kAlpha), "test loss, nats per token", {}, {}},
                Panel{"paper: GPT-2 medium, E2E, table 18", "validation loss", {}, {}}};
  Series reported{"q+v", {}};
  for (std::size_t i = 0; i < kRanks.size(); ++i)
    reported.points.push_back({double(kRanks[i]), kPaperLoss[i], std::nullopt});
  plot.paper->series.push_back(reported);
  for (const std::string& on : kSets) {
    Series series{on, {}};
    for (const int r : kRanks)
      if (const auto m = view.points(task, label(on, r)))
        series.points.push_back({double(r), m->mean, m->interval});
    if (!series.points.empty()) plot.ours.series.push_back(series);
  }
  if (plot.ours.series.empty()) return;
  if (const auto m = view.points(task, "full fine-tuning"))
    plot.ours.baselines.push_back({"full fine-tuning", m->mean, m->interval});
  page.figure(draw(plot, fmt::format("{}-loss-{}", stem.string(), task)),
              fmt::format("Test loss on {} against the rank, lower is better, with 95 % intervals: "
                          "the mean over examples of the mean over each continuation's tokens. "
                          "Right: the paper's own figures, over another vocabulary's tokens: the "
                          "shapes may be compared, the heights may not.",
                          task));
}

std::string language_is_off(const Setup& s) {
  const std::string why =
      s.decoder.empty()
          ? "it needs a causal base, and when this run was set up there was none called 'decoder' "
            "and none was given by --decoder"
          : "no language task is among this run's tasks";
  return fmt::format(
      "Language modelling (T-L3 for q alone; T-L9: the loss falls up to r of about 16, then stays) "
      "is off: {}. Paper, GPT-2 medium on E2E, validation loss for r = 1, 2, 4, 8, 16, 64: 1.23, "
      "1.21, 1.18, 1.17, 1.16, 1.16.",
      why);
}

}  // namespace graft
