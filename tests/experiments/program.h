// Runs a program of this build as its user does.
#pragma once

#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <string>

namespace graft::testing {

struct Said {
  int status;
  std::string text;  // standard output and error
};

// A line for the shell.
inline Said shell_says(const std::string& command) {
  std::FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  REQUIRE(pipe);
  Said said{-1, ""};
  char buffer[4096];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, pipe))
    said.text.append(buffer, n);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) said.status = WEXITSTATUS(status);
  return said;
}

// `name` stands beside the test program; the command may begin with variables.
inline Said program_says(const std::string& variables, const std::string& name,
                         const std::string& arguments) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
  return shell_says(variables + " '" + program.string() + "' " + arguments);
}

// graft, with the models of a folder as its bases.
inline Said graft_says(const std::filesystem::path& bases, const std::string& arguments) {
  return program_says("GRAFT_BASES='" + bases.string() + "'", "graft", arguments);
}

}  // namespace graft::testing
