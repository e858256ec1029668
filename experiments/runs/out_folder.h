// The folder that a command writes into.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace graft {

// Makes the folder, and what is missing above it, so that a path that cannot be is found before the
// work begins. In the end those that it made and that are still empty are taken away again: a
// command that failed leaves no folder behind.
class OutFolder {
 public:
  // Throws with the command's name where the folder cannot be made.
  OutFolder(const std::string& command, const std::filesystem::path& folder);
  ~OutFolder();
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

 private:
  std::vector<std::filesystem::path> made_;  // innermost first
};

}  // namespace graft
