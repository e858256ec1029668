#include "experiments/ablations/report.h"

#include <algorithm>
#include <set>

#include "experiments/ablations/judging.h"
#include "experiments/ablations/sweep.h"
#include "experiments/harness/progress.h"
#include "nn/files/atomic.h"

namespace graft {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::string share_of(const View& view, const std::string& task, const std::string& arm) {
  const auto trains = view.metric(task, arm, "trainable"), base = view.metric(task, arm, "base");
  if (!trains || !base) return "";
  return share_in_words(*trains, *base);
}

Result result_of(const View& now, const View* committed, const std::string& task,
                 const PlannedArm& arm) {
  Result r;
  r.arm = arm.shown;
  r.now = now.points(task, arm.label);
  r.trained = share_of(now, task, arm.label);
  r.diverged_now = static_cast<int>(now.diverged(task, arm.label).size());
  if (committed) {
    r.diverged_committed = static_cast<int>(committed->diverged(task, arm.label).size());
    r.committed = committed->points(task, arm.label);
    if (r.trained.empty()) r.trained = share_of(*committed, task, arm.label);
  }
  r.paper = arm.paper, r.paper_trained = arm.paper_trained, r.paper_model = arm.paper_model;
  return r;
}

// One table for each kind of arm, the baselines at the head of every one.
void result_tables(Page& page, const View& now, const View* committed, const std::string& task) {
  std::vector<Result> baselines;
  std::vector<std::pair<std::string, std::vector<Result>>> tables;
  for (const PlannedArm& arm : now.arms(task)) {
    const Result r = result_of(now, committed, task, arm);
    if (!r.now && !r.committed && r.diverged_now + r.diverged_committed == 0) continue;
    if (arm.table.empty()) {
      baselines.push_back(r);
      continue;
    }
    if (tables.empty() || tables.back().first != arm.table) tables.push_back({arm.table, {}});
    tables.back().second.push_back(r);
  }
  if (tables.empty()) tables.push_back({"baselines", {}});
  for (auto& [name, rows] : tables) {
    if (rows.empty() && baselines.empty()) continue;
    rows.insert(rows.begin(), baselines.begin(), baselines.end());
    const bool language = now.setup().is_language(task);
    page.table(result_table(fmt::format("{}: {}", task, name),
                            language ? "loss, nats per token (lower is better)" : "accuracy, %",
                            rows, language ? 3 : 1));
  }
}

std::string listed(const std::vector<std::uint64_t>& seeds) {
  return fmt::format("{}", fmt::join(seeds, ", "));
}

void set_up(Page& page, const View& now, const View* committed) {
  const Setup& s = now.setup();
  const auto scale_of = [](const Setup& u) {
    std::string text = fmt::format(
        "{} / {} / {} rows (train / dev / test, at most), {} epoch(s), batches of {}, seeds {}",
        u.scale.train, u.scale.dev, u.scale.test, u.scale.epochs, u.scale.batch,
        listed(u.scale.seeds));
    for (const std::string& task : u.tasks)
      if (const auto own = u.scale.of_task.find(task); own != u.scale.of_task.end())
        text += fmt::format("; {}: {} rows of training, {} epoch(s)", task, own->second.train,
                            own->second.epochs);
    return text;
  };
  std::set<std::string> cores, bases;
  std::set<std::uint64_t> seeds;
  double seconds = 0;
  for (const std::string& task : s.tasks)
    for (const PlannedArm& arm : now.arms(task))
      for (const auto& [seed, run] : now.runs(task, arm.label)) {
        cores.insert(run->core), seeds.insert(seed);
        seconds += run->seconds;
        if (run->versions.contains("base") &&
            run->arm.config.at("base").get<std::string>() == s.base)
          bases.insert(run->versions.at("base"));
      }
  Facts facts{
      {"base",
       fmt::format("{} ({} layers, width {}{})", s.base, s.layers, s.width,
                   bases.empty() ? "" : fmt::format("; weights {}", fmt::join(bases, ", ")))},
      {"about the base", s.about.empty() ? "its folder has no about.txt" : s.about},
      {"causal base of language tasks",
       s.decoder.empty() ? "none" : fmt::format("{} (width {})", s.decoder, s.decoder_width)},
      {"tasks", fmt::format("{}", fmt::join(s.tasks, ", "))},
      {"this run", scale_of(s)}};
  if (committed) facts.push_back({"committed full run", scale_of(committed->setup())});
  facts.push_back({"random base",
                   "one that was never trained, of the same shape: one draw for all seeds, so that "
                   "intervals of arms on it leave out how much draws differ"});
  facts.push_back({"training",
                   "AdamW, linear warm-up over the first 10 % of the steps, then linear decay; "
                   "best epoch on dev; test read once"});
  facts.push_back({"this run's arms",
                   fmt::format("{} runs recorded, of seeds {}; {} of training and scoring, core {}",
                               now.recorded(), fmt::join(seeds, ", "), duration(seconds),
                               fmt::join(cores, ", "))});
  page.facts("Set-up", facts);
}

// The same contrasts in this run and in the committed one.
Table effects_table(const View& now, const View& committed) {
  Table table{"The claims' effects in this run, beside the committed full run",
              {{"claim", "", false},
               {"effect", "", false},
               {"claimed", "", false},
               {"this run", "", true},
               {"committed full run", "", true}},
              {}};
  const auto shown = [](const std::optional<Effect>& e, const std::string& unit) {
    return e ? with_interval(e->value, e->interval, unit.starts_with("nats") ? 3 : 1) : "–";
  };
  for (const Statement& s : now.experiment().claims(now.setup()))
    for (std::size_t i = 0; i < s.parts.size(); ++i) {
      const auto here = now.effect(s.parts[i], 2000);
      if (!here) continue;
      table.rows.push_back(
          {s.claim.id, s.claim.parts[i].label, describe(s.claim.parts[i].test, s.claim.unit),
           shown(here, s.claim.unit), shown(committed.effect(s.parts[i], 2000), s.claim.unit)});
    }
  return table;
}

std::vector<Finding> write_claims(Page& page, const View& now, const View* committed) {
  const View* judged = &now;
  if (now.kind() == RunKind::quick && committed && !cases_of(*committed).cases.empty())
    judged = committed;
  const Judged j = cases_of(*judged);
  std::vector<Finding> findings;
  page.heading("Claims");
  if (judged == committed)
    page.paragraph(
        "The verdicts are the committed full run's. This run is too small for any; its own "
        "effects stand in the table below them.");
  if (!j.cases.empty()) findings = judge(j.cases, {.quick = judged->kind() == RunKind::quick});
  page.claims(findings);
  if (!j.diverged.empty())
    page.paragraph(fmt::format("No verdict, because training diverged in what they rest on: {}.",
                               fmt::join(j.diverged, "; ")));
  if (!j.missing.empty())
    page.paragraph(fmt::format("Not measured, because runs that they need are not recorded: {}.",
                               fmt::join(j.missing, ", ")));
  if (judged == committed) {
    const Table table = effects_table(now, *committed);
    if (!table.rows.empty()) page.table(table);
  }
  return findings;
}

}  // namespace

void write_tuning(Page& page, const std::vector<Tuning>& tunings,
                  const std::vector<std::uint64_t>& seeds, const std::string& heading) {
  if (tunings.empty()) return;
  page.heading(heading);
  page.paragraph(
      fmt::format("The metric on dev, in points, or minus the loss of a language task, in nats per "
                  "token, for each learning rate (seeds {}; the best has a star). An arm that is "
                  "not listed takes the rate of the one that stands for its group.",
                  listed(seeds)));
  const bool language =
      std::any_of(tunings.begin(), tunings.end(), [](const Tuning& t) { return t.loss; });
  page.table(tuning_table(tunings, language ? 3 : 1));
  try {
    check_fair(tunings);
  } catch (const Error& error) {
    page.notes(std::vector<std::string>{fmt::format("Tuning is not even yet: {}", error.what())});
  }
}

std::vector<Finding> write_section(Page& page, const View& now, const View* committed,
                                   const std::vector<std::string>& notes, const fs::path& stem) {
  const Experiment& e = now.experiment();
  page.section(e.title);
  page.question(e.question);
  page.paragraph("After " + e.paper + ".");
  for (const std::string& remark : e.remarks) page.paragraph(remark);
  set_up(page, now, committed);
  for (const std::string& task : now.setup().tasks) {
    result_tables(page, now, committed, task);
    const View& judged =
        now.kind() == RunKind::quick && committed && committed->has_task(task) ? *committed : now;
    const Regime regime = regime_of(judged, task);
    if (regime.holds) continue;
    const bool near = regime.known && regime_of(judged, task, false).holds;
    page.paragraph(fmt::format(
        "{}{}: {}.", task,
        !regime.known ? ": whether it carries claims is not known yet"
        : near ? " carries no claim here but those that compare the method with full fine-tuning"
               : " carries no claim here",
        regime.note));
  }
  if (const auto arms = diverged_arms(now); !arms.empty())
    page.paragraph(fmt::format(
        "Training diverged in {}. Such runs have no scores: a mean is over the other seeds, which "
        "flatters its arm.",
        fmt::join(arms, "; ")));
  fs::create_directories(stem.parent_path());
  e.figures(page, now, stem);
  if (committed && now.kind() == RunKind::quick && committed->recorded() > 0) {
    page.heading("The committed full run's figures");
    e.figures(page, *committed, stem.string() + "-committed");
  }
  std::vector<Finding> findings = write_claims(page, now, committed);
  const auto tuning = [&](const View& view, const char* whose) {
    write_tuning(page, view.tunings(), view.setup().scale.tuning_seeds,
                 std::string("Tuning, ") + whose);
  };
  tuning(now, "this run");
  if (committed) tuning(*committed, "committed full run");
  std::vector<std::string> all = notes;
  const std::vector<std::string> missing = now.missing();
  if (!missing.empty())
    all.push_back(
        fmt::format("{} of this set-up's runs are not recorded yet; the first of them: {}",
                    missing.size(), missing.front()));
  page.notes(all);
  return findings;
}

Setup keep_setup(const fs::path& folder, const std::string& experiment, RunKind kind,
                 const Setup& setup) {
  Setup joined = setup;
  if (is_results_folder(folder)) {
    const ResultsFolder old = open_results(folder);
    json a = old.setup.json(), b = setup.json();
    for (json* j : {&a, &b}) {
      j->erase("tasks"), j->erase("seeds"), j->erase("about"), j->erase("of_task");
      // A causal base may join later, with its tasks.
      if (old.setup.decoder.empty() || setup.decoder.empty())
        for (const char* key : {"decoder", "decoder_weights", "decoder_width"}) j->erase(key);
    }
    const bool same_spans = std::ranges::none_of(setup.tasks, [&](const std::string& task) {
      return std::ranges::count(old.setup.tasks, task) > 0 &&
             old.setup.scale.span(task) != setup.scale.span(task);
    });
    check(old.experiment == experiment && old.kind == kind && a == b && same_spans,
          "{} holds results of another set-up ({} {}); choose another --out", folder.string(),
          old.experiment, old.setup.json().dump());
    joined.tasks = old.setup.tasks;
    for (const std::string& task : old.setup.tasks) {  // these keep what they were run with
      joined.scale.of_task.erase(task);
      if (const auto own = old.setup.scale.of_task.find(task); own != old.setup.scale.of_task.end())
        joined.scale.of_task.insert(*own);
    }
    if (setup.decoder.empty())
      joined.decoder = old.setup.decoder, joined.decoder_weights = old.setup.decoder_weights,
      joined.decoder_width = old.setup.decoder_width;
    for (const std::string& task : setup.tasks)
      if (std::find(joined.tasks.begin(), joined.tasks.end(), task) == joined.tasks.end())
        joined.tasks.push_back(task);
    if (old.setup.scale.seeds.size() > setup.scale.seeds.size())
      joined.scale.seeds = old.setup.scale.seeds;
  }
  fs::create_directories(folder);
  write_file_atomically(folder / "setup.json",
                        json{{"experiment", experiment},
                             {"kind", kind == RunKind::quick ? "quick" : "full"},
                             {"setup", joined.json()}}
                                .dump(2) +
                            "\n");
  return joined;
}

bool is_results_folder(const fs::path& folder) { return fs::exists(folder / "setup.json"); }

ResultsFolder open_results(const fs::path& folder) {
  const std::string file = (folder / "setup.json").string();
  const json j = json::parse(read_file(file), nullptr, false);
  check(j.is_object() && j.contains("experiment") && j.contains("setup") && j.contains("kind"),
        "report: {} is no set-up", file);
  Setup setup;
  try {
    setup = Setup::from(j.at("setup"));
  } catch (const Error& e) {
    fail("{}: {}; another version of graft wrote it", file, e.what());
  }
  return {j.at("experiment"), j.at("kind") == "full" ? RunKind::full : RunKind::quick, setup,
          std::make_unique<Records>(folder)};
}

// Whether every committed run is among these, to the second: then they are a copy of it.
static bool holds_all(const Records& now, const Records& committed) {
  return !committed.runs().empty() && std::ranges::all_of(committed.runs(), [&](const Run& run) {
    const Run* same = now.find(run.experiment, run.kind, run.arm);
    return same && same->seconds == run.seconds && same->weights_hash == run.weights_hash;
  });
}

fs::path remake_report(const fs::path& folder, const fs::path& shelf,
                       const std::vector<std::string>& notes) {
  if (is_sweep_folder(folder)) return sweep_report(folder);
  const std::vector<Experiment> all = all_experiments();
  std::vector<fs::path> parts;
  if (is_results_folder(folder)) {
    parts.push_back(folder);
  } else {
    for (const Experiment& e : all)
      if (is_results_folder(folder / e.name)) parts.push_back(folder / e.name);
  }
  check(!parts.empty(),
        "report: {} holds no setup.json, and neither do folders in it that are named "
        "after an experiment; is it a results folder?",
        folder.string());
  Page page(parts.size() > 1 ? "graft: the papers' ablations on a small transformer"
                             : "graft: " + open_results(parts[0]).experiment);
  for (const std::string& note : notes) page.summary(note);
  for (const fs::path& part : parts) {
    const ResultsFolder now = open_results(part);
    const Experiment& e = experiment_named(all, now.experiment);
    const View view(e, *now.records, now.kind, now.setup);
    ResultsFolder full;
    std::unique_ptr<View> committed;
    const fs::path kept = shelf / e.name;
    std::vector<std::string> notes_here = now.records->notes();
    if (is_results_folder(kept) && !fs::equivalent(kept, part)) {
      full = open_results(kept);
      if (holds_all(*now.records, *full.records))
        notes_here.push_back("The committed full run is part of this one.");
      else if (full.setup.same_bases(now.setup))
        committed = std::make_unique<View>(e, *full.records, full.kind, full.setup);
      else
        notes_here.push_back("The committed full run is of another base and not shown here.");
    }
    write_section(page, view, committed.get(), notes_here, folder / "figures" / e.name);
  }
  write_file_atomically(folder / "report.html", page.html());
  return folder / "report.html";
}

}  // namespace graft
