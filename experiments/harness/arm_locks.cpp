#include "experiments/harness/arm_locks.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "tensor/error.h"

namespace graft {
namespace {

// Locks of the open file, not of the process: two campaigns of one process exclude each other too.
int set_lock(int file, short type, long long place) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = place;
  lock.l_len = 1;
  int rc = 0;
  do rc = ::fcntl(file, F_OFD_SETLK, &lock);
  while (rc != 0 && errno == EINTR);
  return rc;
}

}  // namespace

ArmLocks::ArmLocks(const std::filesystem::path& folder) : path_(folder / ".arm_locks") {
  std::filesystem::create_directories(folder);
  file_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  check(file_ >= 0, "results: cannot open {}: {}", path_.string(), std::strerror(errno));
}

ArmLocks::~ArmLocks() {
  if (file_ >= 0) ::close(file_);
}

ArmLocks::Held::~Held() {
  if (file_ >= 0) set_lock(file_, F_UNLCK, place_);
}

std::optional<ArmLocks::Held> ArmLocks::take(std::string_view key) const {
  // 60 bits of the key: no file is ever that long, and two keys of one folder do not meet.
  const long long place = std::stoll(std::string(key.substr(0, 15)), nullptr, 16);
  if (set_lock(file_, F_WRLCK, place) == 0) return std::optional<Held>(std::in_place, file_, place);
  check(errno == EACCES || errno == EAGAIN,
        "results: cannot lock {}: {}; results need a file system with locks", path_.string(),
        std::strerror(errno));
  return std::nullopt;
}

}  // namespace graft
