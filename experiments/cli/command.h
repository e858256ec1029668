// A program's command line: commands, their options, and what they call. The library behind it,
// CLI11, is all headers and slow to compile, so command.cpp alone includes it.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace graft::cli {

inline constexpr const char* kDeviceHelp = "cpu, or cuda where this is built with it";
inline constexpr const char* kComputeHelp =
    "f32, or on a device bf16 or f16: rows and the frozen base are stored so, what trains stays "
    "f32";

// One option of a command, which it lives as long as.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option required() const;
  Option capture_default_str() const;  // help shows the value that the variable has now
  Option default_str(const std::string& shown) const;
  Option delimiter(char between) const;    // of the values of a list
  Option allow_extra_args(bool on) const;  // whether a list may go on without its name
  Option one_of(const std::vector<std::string>& values) const;
  Option between(int least, int most) const;
  Option not_negative() const;
  Option excludes(Option other) const;
  Option needs(Option other) const;
  std::size_t count() const;  // how often it was given
  std::string name() const;   // with its dashes

 private:
  CLI::Option* option_;
};

// A command; the program itself is one. It lives as long as its CommandLine.
class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}
  Command add_subcommand(const std::string& name, const std::string& about) const;
  // Fills the variable. Of the types that command.cpp lists; a value that is none is an error of
  // the arguments.
  template <class T>
  Option add_option(const std::string& names, T& value, const std::string& about = "") const;
  Option add_flag(const std::string& names, bool& value, const std::string& about = "") const;
  void callback(std::function<void()> call) const;
  std::vector<Option> options() const;
  Option option(const std::string& name) const;

 protected:
  CLI::App* app_;
};

class CommandLine : public Command {
 public:
  explicit CommandLine(const std::string& about);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  void require_subcommand() const;
  std::vector<std::string> subcommands() const;
  // What is printed where the arguments are wrong, of what is wrong with them.
  void failure_message(std::function<std::string(const char* wrong)> line) const;
  // Reads the arguments and calls what they name. Where they ask for help, or are wrong, prints
  // that and returns the exit code instead.
  std::optional<int> parse(int argc, const char* const* argv) const;

 private:
  std::unique_ptr<CLI::App> own_;
};

}  // namespace graft::cli
