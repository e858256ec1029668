// graft main, sweep, report: the papers' ablations, and grids of one's own.
#include "experiments/ablations/program.h"
#include "experiments/ablations/report.h"
#include "experiments/ablations/sweep.h"
#include "experiments/cli/cli.h"
#include "experiments/cli/on_device.h"
#include "nn/files/atomic.h"
#include "nn/files/strict_json.h"

namespace graft::cli {
namespace {

namespace fs = std::filesystem;

void sweep_command(const std::string& file, std::string out, const std::string& shard,
                   double minutes, const Computing& where, const Methods& methods) {
  nlohmann::json spec = parse_strict("sweep: " + file, read_file(file));
  if (!where.device.empty() && spec.is_object()) spec["device"] = where.device;
  if (!where.compute.empty() && spec.is_object()) spec["compute"] = where.compute;
  const SweepSpec parsed = SweepSpec::from(spec);
  if (out.empty()) out = (fs::path("results") / parsed.name).string();
  Lab lab(methods, base_folder, parsed.where);
  const fs::path page = run_sweep(lab, base_folder, spec, out, parse_shard(shard), minutes);
  fmt::print("report: {}\n", page.string());
}

}  // namespace

void add_experiment_commands(const Command& app, const Methods& methods) {
  static MainOptions o;
  static std::string file, folder, out, shard = "0/1";
  static Computing where{"", ""};  // of a sweep: what its file says
  static double minutes = 0;
  const Command all = app.add_subcommand("main", "A part of the three ablations, and their page");
  all.add_option("--out", o.out, "results folder; what is recorded there is not run again")
      .required();
  all.add_option("--minutes", o.minutes, "time for all of it")
      .capture_default_str()
      .between(1, 100000);
  all.add_option("--model", o.base, "a base's name or a model folder").capture_default_str();
  all.add_option("--decoder", o.decoder,
                 "causal base of the language tasks; without one, or a base called 'decoder', they "
                 "are off");
  all.add_flag("--quick", o.quick, "the smallest scale");
  add_computing(all, o.where);
  all.callback([&] { run_main(o, methods); });

  const Command sweep =
      app.add_subcommand("sweep", "Run a grid of your own over your own data or our tasks");
  sweep.add_option("spec", file, "a JSON file; experiments/ablations/sweep.h says what is in it")
      .required();
  sweep.add_option("--out", out, "results folder").default_str("results/NAME");
  sweep.add_option("--shard", shard, "i/n: this job's part of the arms").capture_default_str();
  sweep.add_option("--minutes", minutes, "start no arm after so long; 0: no limit")
      .capture_default_str();
  sweep.add_option("--device", where.device, fmt::format("{}; without it the file's", kDeviceHelp));
  sweep.add_option("--compute", where.compute,
                   fmt::format("{}; without it the file's", kComputeHelp));
  sweep.callback([&] { sweep_command(file, out, shard, minutes, where, methods); });

  const Command report =
      app.add_subcommand("report", "Remake a results folder's page from its records");
  report.add_option("folder", folder).required();
  report.callback(
      [&] { fmt::print("report: {}\n", remake_report(folder, results_shelf()).string()); });
}

}  // namespace graft::cli
