// The page of an experiment, from its records alone.
#pragma once

#include <filesystem>
#include <memory>

#include "experiments/ablations/view.h"
#include "experiments/harness/page.h"

namespace graft {

// One experiment's section: question, set-up, tables (this run, the committed full run and the
// paper in columns of their own), figures, claims, tuning, notes. Verdicts come from a full run:
// from this one, or else from the committed one; without either there are effects and intervals.
// `stem` begins the names of the figures' files. Returns the findings.
std::vector<Finding> write_section(Page&, const View& now, const View* committed,
                                   const std::vector<std::string>& notes,
                                   const std::filesystem::path& stem);

// What was tried, where anything was, and whether all arms were searched alike.
void write_tuning(Page&, const std::vector<Tuning>&, const std::vector<std::uint64_t>& seeds,
                  const std::string& heading);

// A results folder: its records and, in setup.json, what they are of.
struct ResultsFolder {
  std::string experiment;
  RunKind kind = RunKind::quick;
  Setup setup;
  std::unique_ptr<Records> records;
};
// Throws where an existing set-up differs in more than its tasks and seeds, which are joined: the
// joined set-up is returned.
Setup keep_setup(const std::filesystem::path& folder, const std::string& experiment, RunKind,
                 const Setup&);
bool is_results_folder(const std::filesystem::path&);
ResultsFolder open_results(const std::filesystem::path&);

// Remakes DIR/report.html for a results folder, a folder of such folders, or a sweep's folder, and
// returns its path. `shelf` holds the committed results, one folder for each experiment.
std::filesystem::path remake_report(const std::filesystem::path& folder,
                                    const std::filesystem::path& shelf,
                                    const std::vector<std::string>& notes = {});

}  // namespace graft
