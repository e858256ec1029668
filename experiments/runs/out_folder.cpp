#include "experiments/runs/out_folder.h"

#include "tensor/error.h"

namespace graft {

namespace fs = std::filesystem;

OutFolder::OutFolder(const std::string& command, const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> missing;
  const fs::path whole = fs::absolute(folder / "", error).parent_path();
  for (fs::path at = whole; !fs::exists(at, error) && at.has_relative_path(); at = at.parent_path())
    missing.push_back(at);
  fs::create_directories(whole, error);
  if (!error) made_ = std::move(missing);
  check(!error, "{}: cannot make folder '{}': {}", command, folder.string(), error.message());
}

OutFolder::~OutFolder() {
  std::error_code error;  // of a folder that holds something, which stays
  for (const fs::path& folder : made_)
    if (!fs::remove(folder, error)) return;
}

}  // namespace graft
