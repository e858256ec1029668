#include "experiments/runs/out_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "tensor/error.h"

namespace graft {

namespace fs = std::filesystem;

namespace {

void remove_empty(const std::vector<fs::path>& folders) {
  std::error_code full;  // of a folder that holds something, which stays, as does what is above it
  for (const fs::path& folder : folders) fs::remove(folder, full);
}

// A lock of the folder itself; -1 on a file system that has none, where no work is refused for it.
// False in `free` where another process has it.
int lock_folder(const fs::path& folder, bool& free) {
  free = true;
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return -1;
  int rc = 0;
  do rc = ::flock(file, LOCK_EX | LOCK_NB);
  while (rc != 0 && errno == EINTR);
  if (rc == 0) return file;
  free = errno != EWOULDBLOCK;
  ::close(file);
  return -1;
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
  bool free = true;
  lock_ = lock_folder(whole, free);
  check(free, "{}: another graft is writing to '{}'; give another --out, or wait until it is done",
        command, folder.string());
}

OutFolder::~OutFolder() {
  remove_empty(made_);
  if (lock_ >= 0) ::close(lock_);
}

}  // namespace graft
