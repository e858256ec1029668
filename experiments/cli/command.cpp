#include "experiments/cli/command.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <type_traits>

namespace graft::cli {

Option Option::required() const { return option_->required(), *this; }
Option Option::capture_default_str() const { return option_->capture_default_str(), *this; }
Option Option::default_str(const std::string& s) const { return option_->default_str(s), *this; }
Option Option::delimiter(char between) const { return option_->delimiter(between), *this; }
Option Option::allow_extra_args(bool on) const { return option_->allow_extra_args(on), *this; }
Option Option::one_of(const std::vector<std::string>& values) const {
  return option_->check(CLI::IsMember(values)), *this;
}
Option Option::between(int least, int most) const {
  return option_->check(CLI::Range(least, most)), *this;
}
// CLI11's own would print its whole range, all digits of the greatest double.
Option Option::not_negative() const {
  const CLI::Validator least(
      [](std::string& text) {
        double value = 0;
        const char* const end = text.data() + text.size();
        const auto [at, error] = std::from_chars(text.data(), end, value);
        const bool good = error == std::errc() && at == end && value >= 0;
        return good ? std::string() : text + " given; need 0 or more";
      },
      "NONNEGATIVE");
  return option_->check(least), *this;
}
Option Option::excludes(Option other) const { return option_->excludes(other.option_), *this; }
Option Option::needs(Option other) const { return option_->needs(other.option_), *this; }
std::size_t Option::count() const { return option_->count(); }
std::string Option::name() const { return option_->get_name(); }

Command Command::add_subcommand(const std::string& name, const std::string& about) const {
  return Command(app_->add_subcommand(name, about));
}

template <class T>
Option Command::add_option(const std::string& names, T& value, const std::string& about) const {
  CLI::Option* option = app_->add_option(names, value, about);
  // CLI11 would read a text in square brackets as a list, and so take [INST] off a prompt. A list
  // is given by its option's name once more for each text, or with a delimiter.
  if constexpr (std::is_same_v<T, std::vector<std::string>>) option->allow_extra_args(false);
  return Option(option);
}
#define GRAFT_OPTION_OF(...) \
  template Option Command::add_option(const std::string&, __VA_ARGS__&, const std::string&) const;
GRAFT_OPTION_OF(std::string)
GRAFT_OPTION_OF(std::filesystem::path)
GRAFT_OPTION_OF(int)
GRAFT_OPTION_OF(std::int64_t)
GRAFT_OPTION_OF(std::uint32_t)
GRAFT_OPTION_OF(std::uint64_t)
GRAFT_OPTION_OF(double)
GRAFT_OPTION_OF(std::optional<int>)
GRAFT_OPTION_OF(std::optional<std::uint32_t>)
GRAFT_OPTION_OF(std::optional<double>)
GRAFT_OPTION_OF(std::optional<std::string>)
GRAFT_OPTION_OF(std::vector<std::string>)
GRAFT_OPTION_OF(std::vector<double>)
#undef GRAFT_OPTION_OF

Option Command::add_flag(const std::string& names, bool& value, const std::string& about) const {
  return Option(app_->add_flag(names, value, about));
}

void Command::callback(std::function<void()> call) const { app_->callback(std::move(call)); }

std::vector<Option> Command::options() const {
  std::vector<Option> all;
  for (CLI::Option* option : app_->get_options()) all.emplace_back(option);
  return all;
}

Option Command::option(const std::string& name) const { return Option(app_->get_option(name)); }

CommandLine::CommandLine(const std::string& about)
    : Command(nullptr), own_(std::make_unique<CLI::App>(about)) {
  app_ = own_.get();
}
CommandLine::~CommandLine() = default;

void CommandLine::require_subcommand() const { app_->require_subcommand(1); }

std::vector<std::string> CommandLine::subcommands() const {
  std::vector<std::string> names;
  for (const CLI::App* command : app_->get_subcommands([](const CLI::App*) { return true; }))
    names.push_back(command->get_name());
  return names;
}

void CommandLine::failure_message(std::function<std::string(const char* wrong)> line) const {
  app_->failure_message([line = std::move(line)](const CLI::App*, const CLI::Error& error) {
    return line(error.what());
  });
}

std::optional<int> CommandLine::parse(int argc, const char* const* argv) const {
  try {
    app_->parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app_->exit(error);
  }
  return {};
}

}  // namespace graft::cli
