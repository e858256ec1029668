#include "experiments/cli/cli.h"

#include <algorithm>
#include <cstdlib>

namespace graft {

namespace cli {

namespace {

namespace fs = std::filesystem;

bool is_model(const fs::path& folder) {
  std::error_code ignored;  // a name that no file can have is no model's
  return fs::exists(folder / "config.json", ignored);
}

// Where bases lie.
std::vector<fs::path> shelves() {
  std::vector<fs::path> all;
  if (const char* own = std::getenv("GRAFT_BASES")) all.emplace_back(own);
  all.emplace_back(fs::path(GRAFT_SOURCE_DIR) / "experiments" / "bases");
  std::error_code unknown;  // where the program is; its package has bases, too, when installed
  const fs::path program = fs::read_symlink("/proc/self/exe", unknown);
  const fs::path installed = program.parent_path().parent_path() / "share" / "graft" / "bases";
  if (!unknown && fs::exists(installed)) all.push_back(installed);
  return all;
}

}  // namespace

std::optional<fs::path> find_base(const std::string& name_or_path) {
  if (is_model(name_or_path)) return name_or_path;
  for (const fs::path& shelf : shelves())
    if (is_model(shelf / name_or_path)) return shelf / name_or_path;
  return std::nullopt;
}

fs::path base_folder(const std::string& name_or_path) {
  if (const auto found = find_base(name_or_path)) return *found;
  std::vector<std::string> places;
  for (const fs::path& shelf : shelves()) places.push_back(shelf.string());
  fail("model '{}': no such folder with a config.json, and no base of that name in {}",
       name_or_path, fmt::join(places, ", "));
}

}  // namespace cli

int cli_main(int argc, const char* const* argv, const Methods& methods) {
  const cli::CommandLine app("graft: parameter-efficient fine-tuning from scratch");
  app.require_subcommand();
  app.failure_message([](const char* wrong) {
    return fmt::format("graft: {} (graft --help lists the commands)\n", wrong);
  });
  try {
    cli::add_model_commands(app, methods);
    cli::add_run_commands(app, methods);
    cli::add_multitask(app, methods);
    cli::add_adapter_commands(app, methods);
    cli::add_predict(app, methods);
    cli::add_generate(app, methods);
    cli::add_embed(app);
    cli::add_combine(app);
    cli::add_exchange_commands(app, methods);
    cli::add_data_commands(app);
    cli::add_pretrain(app, methods);
    cli::add_ngram(app);
    cli::add_experiment_commands(app, methods);
    const std::vector<std::string> names = app.subcommands();
    check(argc < 2 || argv[1][0] == '-' || std::count(names.begin(), names.end(), argv[1]) == 1,
          "no command is called '{}'; there are {}", argv[1], fmt::join(names, ", "));
    const std::optional<int> code = app.parse(argc, argv);
    // What was said is part of the work: answers that a full disk did not take are lost.
    check(std::fflush(stdout) == 0 && std::ferror(stdout) == 0,
          "standard output did not take all that was written to it");
    return code.value_or(0) == 0 ? 0 : 2;
  } catch (const std::exception& e) {
    std::fputs(fmt::format("graft: {}\n", e.what()).c_str(), stderr);  // it may be full, too
    return 1;
  }
}

}  // namespace graft
