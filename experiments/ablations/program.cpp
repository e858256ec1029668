#include "experiments/ablations/program.h"

#include <algorithm>
#include <chrono>

#include "experiments/ablations/report.h"
#include "experiments/ablations/runner.h"
#include "experiments/cli/command.h"
#include "experiments/cli/main.h"
#include "experiments/cli/on_device.h"
#include "nn/models/folder.h"
#include "nn/optim/diverged.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

struct ProgramOptions {
  bool quick = false, full = false;
  std::string base = "encoder", decoder, out, shard = "0/1";
  std::vector<std::string> tasks;
  int seeds = 0;
  double minutes = 0;
  Computing where;
};

void add_options(const cli::Command& app, ProgramOptions& o, const Experiment& e) {
  const cli::Option quick =
      app.add_flag("--quick", o.quick, "few arms and rows: effects, no verdicts (the standard)");
  app.add_flag("--full", o.full, "every arm: takes days, goes on where it stopped").excludes(quick);
  app.add_option("--model", o.base, "a base's name or a model folder").capture_default_str();
  if (!e.language_tasks.empty())
    app.add_option("--decoder", o.decoder,
                   "causal base of the language tasks; without one, or a base called 'decoder', "
                   "they are off");
  app.add_option("--task", o.tasks, "tasks or folders of .tsv files, the larger first")
      .delimiter(',')
      .default_str(fmt::format("{}", fmt::join(e.tasks, ",")));
  app.add_option("--seeds", o.seeds, "how many seeds").between(1, 99);
  app.add_option("--out", o.out, "results folder").default_str("results/" + e.name);
  app.add_option("--shard", o.shard, "i/n: this job's part of the arms").capture_default_str();
  app.add_option("--minutes", o.minutes, "start no arm after so long; 0: no limit")
      .capture_default_str();
  cli::add_computing(app, o.where);
}

// The committed results of an experiment, where they are of the same base and not what is being
// written.
struct Committed {
  Committed(const Experiment& e, const Setup& setup, const fs::path& out) {
    const fs::path kept = results_shelf() / e.name;
    if (!is_results_folder(kept) || fs::weakly_canonical(kept) == fs::weakly_canonical(out)) return;
    folder = open_results(kept);
    if (!folder.setup.same_bases(setup)) return;
    path = kept;
    view = std::make_unique<View>(e, *folder.records, folder.kind, folder.setup);
  }
  fs::path path;
  ResultsFolder folder;
  std::unique_ptr<View> view;
};

// Other experiments' results beside `out` that were made with the same base. Not the same
// experiment's: who runs that again wants to see whether it comes out again.
std::vector<fs::path> siblings_of(const Experiment& e, const fs::path& out, const Setup& setup) {
  std::vector<fs::path> found;
  const fs::path shelf = fs::absolute(out).parent_path();
  if (!fs::exists(shelf)) return found;
  for (const auto& entry : fs::directory_iterator(shelf)) {
    if (!is_results_folder(entry.path())) continue;
    try {
      const ResultsFolder other = open_results(entry.path());
      if (other.experiment != e.name && other.setup.same_bases(setup))
        found.push_back(entry.path());
    } catch (const Error& error) {
      fmt::print("not looked into for runs in common: {}\n", error.what());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

void run_program(const Experiment& e, ProgramOptions o, const Methods& methods) {
  (void)device_of(o.where);  // throws before anything is written
  Scale scale = o.full ? full_scale() : quick_scale();
  if (o.seeds > 0) {
    scale.seeds.clear();
    for (int i = 1; i <= o.seeds; ++i) scale.seeds.push_back(static_cast<std::uint64_t>(i));
  }
  const fs::path out =
      o.out.empty() ? fs::path("results") / (e.name + (o.full ? "" : "-quick")) : fs::path(o.out);
  RunOptions run;
  run.kind = o.full ? RunKind::full : RunKind::quick;
  run.campaign.shard = parse_shard(o.shard);
  run.campaign.minutes = o.minutes;
  run.campaign.out = out;
  Setup setup = setup_for(e, cli::base_folder, o.base, o.tasks, scale, !o.full, o.decoder);
  setup.where = o.where;
  check_setup(methods, cli::base_folder, e, setup);
  keep_setup(out, e.name, run.kind, setup);
  run.campaign.siblings = siblings_of(e, out, setup);
  const Committed committed(e, setup, out);
  // Rates found on another device or in another type are not this run's.
  if (!o.full || committed.folder.setup.where == setup.where)
    run.campaign.committed = committed.path;
  Lab lab(methods, cli::base_folder, o.where);
  const Outcome outcome = run_arms(lab, e, setup, run, committed.view.get());
  for (const std::string& note : outcome.notes) fmt::print("{}\n", note);
  fmt::print("{} runs trained now\nreport: {}\n", outcome.trained,
             remake_report(out, results_shelf(), outcome.notes).string());
  if (!outcome.diverged.empty()) throw Diverged(outcome.diverged);
}

}  // namespace

fs::path results_shelf() { return fs::path(GRAFT_SOURCE_DIR) / "experiments" / "results"; }

int experiment_main(int argc, const char* const* argv, const std::string& name,
                    const Methods& methods) {
  try {
    const std::vector<Experiment> all = all_experiments();
    const Experiment& e = experiment_named(all, name);
    const cli::CommandLine app(e.title + ": " + e.question + "\nAfter " + e.paper + ".");
    ProgramOptions o;
    add_options(app, o, e);
    if (const std::optional<int> code = app.parse(argc, argv)) return *code;
    run_program(e, o, methods);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}: {}\n", name, error.what());
    return 1;
  }
}

void run_main(const MainOptions& o, const Methods& methods) {
  const auto begun = std::chrono::steady_clock::now();
  (void)device_of(o.where);  // throws before anything is written
  std::vector<Experiment> all = all_experiments();
  std::vector<std::string> notes;
  const bool text = load_arch(cli::base_folder(o.base)).crosses();
  std::erase_if(all, [&](const Experiment& e) {
    if (e.in_main && text && !e.not_on_text.empty())
      notes.push_back(fmt::format("{} is left out, since base '{}' is an encoder-decoder: {}.",
                                  e.name, o.base, e.not_on_text));
    return !e.in_main || (text && !e.not_on_text.empty());
  });
  const Scale scale = o.quick ? quick_scale() : main_scale();
  std::vector<Setup> setups;
  for (const Experiment& e : all) {
    setups.push_back(setup_for(e, cli::base_folder, o.base, {}, scale, true,
                               e.language_tasks.empty() ? "" : o.decoder));
    setups.back().where = o.where;
    check_setup(methods, cli::base_folder, e, setups.back());
  }
  for (std::size_t i = 0; i < all.size(); ++i)
    keep_setup(o.out / all[i].name, all[i].name, RunKind::quick, setups[i]);
  Lab lab(methods, cli::base_folder, o.where);
  // What was left out for want of minutes is planned again while there are some: the first runs
  // have shown how fast this machine is.
  int trained = 0, planned = 0;
  std::vector<Outcome> outcomes(all.size());
  for (Outcome& outcome : outcomes) outcome.left_out = true;
  const auto minutes_left = [&] {  // a minute is kept for the page
    return o.minutes - 1 -
           std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count() / 60;
  };
  for (bool first = true, more = true; more; first = false) {
    more = false;
    auto open = std::count_if(outcomes.begin(), outcomes.end(),
                              [](const Outcome& outcome) { return outcome.left_out; });
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (!outcomes[i].left_out || (!first && minutes_left() < 0.5)) continue;
      RunOptions run;
      run.tune = false, run.fit = true;
      run.campaign.minutes = std::max(0.1, minutes_left() / static_cast<double>(open--));
      run.campaign.last_minutes = std::max(0.2, minutes_left());
      run.campaign.out = o.out / all[i].name;
      run.campaign.siblings = siblings_of(all[i], run.campaign.out, setups[i]);
      const Committed committed(all[i], setups[i], run.campaign.out);
      run.campaign.committed = committed.path;
      outcomes[i] = run_arms(lab, all[i], setups[i], run, committed.view.get());
      trained += outcomes[i].trained;
      if (first) planned += outcomes[i].planned;
      more = more || (outcomes[i].left_out && outcomes[i].trained > 0);
    }
  }
  for (const Outcome& outcome : outcomes)
    notes.insert(notes.end(), outcome.notes.begin(), outcome.notes.end());
  notes.insert(notes.begin(),
               fmt::format("{} runs were trained now, of {} that this command has; the others were "
                           "recorded here before or did not fit.",
                           trained, planned));
  fmt::print("{}\nreport: {}\n", fmt::join(notes, "\n"),
             remake_report(o.out, results_shelf(), notes).string());
  for (const Outcome& outcome : outcomes)
    if (!outcome.diverged.empty()) throw Diverged(outcome.diverged);
}

}  // namespace graft
