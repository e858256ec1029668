// The folder that a command writes into.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace graft {

// Makes the folder, and what is missing above it, so that a path that cannot be is found before the
// work begins. In the end those that it made and that are still empty are taken away again: a
// command that failed leaves no folder behind. Meanwhile no other process gets one of the same
// folder: of two runs in it one would be lost. The system takes the lock of a process that ends,
// however it ends, and no file is left of it.
class OutFolder {
 public:
  // Throws with the command's name where the folder cannot be made, or another one has it.
  OutFolder(const std::string& command, const std::filesystem::path& folder);
  ~OutFolder();
  OutFolder(const OutFolder&) = delete;
  OutFolder& operator=(const OutFolder&) = delete;

 private:
  std::vector<std::filesystem::path> made_;  // innermost first
  int lock_ = -1;
};

}  // namespace graft
