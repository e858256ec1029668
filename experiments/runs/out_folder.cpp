#include "experiments/runs/out_folder.h"

#include "tensor/error.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

void remove_empty(const std::vector<fs::path>& folders) {
  std::error_code full;  // of a folder that holds something, which stays, as does what is above it
  for (const fs::path& folder : folders) fs::remove(folder, full);
}

}  // namespace

OutFolder::OutFolder(const std::string& command, const fs::path& folder) {
  std::error_code error;
  const fs::path whole = fs::absolute(folder / "", error).parent_path();
  for (fs::path at = whole; !fs::exists(at, error) && at.has_relative_path(); at = at.parent_path())
    if (at.filename() != "." && at.filename() != "..") made_.push_back(at);
  fs::create_directories(whole, error);
  if (error) remove_empty(made_);
  check(!error, "{}: cannot make folder '{}': {}", command, folder.string(), error.message());
}

OutFolder::~OutFolder() { remove_empty(made_); }

}  // namespace graft
