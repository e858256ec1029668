#include "nn/files/atomic.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "tensor/error.h"

namespace graft {
namespace fs = std::filesystem;
namespace {

// Calls `f` again for as long as a signal interrupts it.
template <class F>
auto retry(F f) {
  auto result = f();
  while (result < 0 && errno == EINTR) result = f();
  return result;
}

// A descriptor that closes itself; for reading, where close() cannot lose anything.
struct Descriptor {
  int value;
  explicit Descriptor(int v) : value(v) {}
  Descriptor(const Descriptor&) = delete;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

[[noreturn]] void fail_reading(const fs::path& path, const char* operation) {
  fail("{}: cannot read the file: {}: {}", path.string(), operation, std::strerror(errno));
}

int open_regular(const fs::path& path, struct stat& status) {
  check(path.native().find('\0') == std::string::npos,
        "{}: cannot read the file: its name holds a zero byte", path.string());
  const int file = retry([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); });
  if (file < 0) fail_reading(path, "open");
  if (::fstat(file, &status) != 0) {
    const int reason = errno;
    ::close(file);
    errno = reason;
    fail_reading(path, "fstat");
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(file);
    fail("{}: cannot read the file: it is a {}; need a regular file", path.string(),
         S_ISDIR(status.st_mode) ? "folder" : "device or pipe");
  }
  return file;
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// Where a chain of symbolic links leads; the last one may point at a file that does not exist yet.
fs::path behind_links(fs::path path) {
  std::error_code ignored;
  for (int depth = 0; fs::is_symlink(fs::symlink_status(path, ignored)); ++depth) {
    check(depth < 40, "{}: cannot write the file: its symbolic links go in a circle",
          path.string());
    path = folder_of(path) / fs::read_symlink(path, ignored);  // an absolute target stands alone
  }
  return path;
}

// Whether this is what AtomicFile calls a temporary file for `file`: .FILE.PROCESS-SERIAL.tmp
bool is_temporary_of(std::string_view file, std::string_view name) {
  if (!name.starts_with('.') || !name.substr(1).starts_with(file)) return false;
  name.remove_prefix(1 + file.size());
  if (!name.starts_with('.') || !name.ends_with(".tmp") || name.size() < 8) return false;
  name = name.substr(1, name.size() - 5);
  const std::size_t dash = name.find('-');
  const auto number = [](std::string_view part) {
    return !part.empty() && part.find_first_not_of("0123456789") == part.npos;
  };
  return dash != name.npos && number(name.substr(0, dash)) && number(name.substr(dash + 1));
}

// Removes what killed writers of this file left. One that lives holds a lock, which its end gives
// up however it comes, and which also tells of writers on other machines and in other containers.
void remove_leftovers(const fs::path& path) {
  const std::string file = path.filename().string();
  std::error_code ignored;
  std::vector<fs::path> found;
  for (fs::directory_iterator at(folder_of(path), ignored), end; !ignored && at != end;
       at.increment(ignored))
    if (is_temporary_of(file, at->path().filename().string())) found.push_back(at->path());
  for (const fs::path& old : found) {
    const Descriptor opened(
        retry([&] { return ::open(old.c_str(), O_WRONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW); }));
    struct stat status {};
    if (opened.value >= 0 && ::fstat(opened.value, &status) == 0 && S_ISREG(status.st_mode) &&
        retry([&] { return ::flock(opened.value, LOCK_EX | LOCK_NB); }) == 0)
      ::unlink(old.c_str());
  }
}

// False where someone took the new file for a leftover before it could be locked. Some file systems
// have no locks, and there no one removes anything.
bool lock_new(int file) {
  struct stat status {};
  const int taken = retry([&] { return ::flock(file, LOCK_EX | LOCK_NB); });
  if (taken != 0 && errno == EWOULDBLOCK) return false;
  return ::fstat(file, &status) != 0 || status.st_nlink > 0;
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& path) : path_(behind_links(path)) {
  static std::atomic<unsigned> serial{0};
  check(path_.has_filename(), "{}: cannot write the file: the path names no file", path.string());
  struct stat old {};
  const bool replaces = ::stat(path_.c_str(), &old) == 0;
  if (replaces && !S_ISREG(old.st_mode))
    fail("{}: cannot write the file: a {} stands there; need a regular file or none",
         path_.string(), S_ISDIR(old.st_mode) ? "folder" : "device or pipe");
  remove_leftovers(path_);
  // The process and a serial number keep writers apart; a leftover of a killed process with the
  // same number is skipped by trying the next name.
  do {
    if (file_ >= 0) ::close(std::exchange(file_, -1));
    temporary_ = folder_of(path_) / fmt::format(".{}.{}-{}.tmp", path_.filename().string(),
                                                ::getpid(), serial.fetch_add(1));
    file_ = retry(
        [&] { return ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666); });
  } while (file_ < 0 ? errno == EEXIST : !lock_new(file_));
  if (file_ < 0) fail_at("create a temporary file beside it");
  if (replaces && ::fchmod(file_, old.st_mode & 0777) != 0) fail_at("fchmod");
}

AtomicFile::~AtomicFile() { abandon(); }

void AtomicFile::abandon() noexcept {
  if (file_ < 0) return;
  ::close(std::exchange(file_, -1));
  ::unlink(temporary_.c_str());
}

// Must be called straight after the failing call, while errno holds its reason.
void AtomicFile::fail_at(const char* operation) {
  const int reason = errno;
  abandon();
  fail("{}: cannot write the file: {}: {}; what stood there before is unchanged", path_.string(),
       operation, std::strerror(reason));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  check(file_ >= 0, "{}: cannot write the file: it was committed or has failed before",
        path_.string());
  while (!bytes.empty()) {
    const auto written = retry([&] { return ::write(file_, bytes.data(), bytes.size()); });
    if (written < 0) fail_at("write");
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::write(std::string_view bytes) { write(std::as_bytes(std::span(bytes))); }

void AtomicFile::commit() {
  check(file_ >= 0, "{}: cannot write the file: it was committed or has failed before",
        path_.string());
  if (retry([&] { return ::fsync(file_); }) != 0) fail_at("fsync");
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail_at("rename");
  // The new file stands in place from here on, so a failure may no longer say otherwise.
  const bool closed = ::close(std::exchange(file_, -1)) == 0 || errno == EINTR;
  check(closed, "{}: the new file is in place, but close: {}", path_.string(),
        std::strerror(errno));
  const fs::path folder = folder_of(path_);
  const Descriptor entry(
      retry([&] { return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC); }));
  // A folder that may be written but not read cannot be flushed, nor can one on some file systems.
  if (entry.value < 0 && errno == EACCES) return;
  const bool flushed = entry.value >= 0 && (retry([&] { return ::fsync(entry.value); }) == 0 ||
                                            errno == EINVAL || errno == ENOTSUP);
  check(flushed, "{}: the new file is in place, but its folder could not be flushed: {}",
        path_.string(), std::strerror(errno));
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

std::string read_file(const fs::path& path) {
  struct stat status {};
  const Descriptor file(open_regular(path, status));
  // Room for one byte more than it says lets the same loop see the end of a file that has grown,
  // and files in /proc, which call themselves empty, are read all the same.
  std::string bytes(static_cast<std::size_t>(status.st_size) + 1, '\0');
  std::size_t size = 0;
  for (;;) {
    if (size == bytes.size()) bytes.resize(2 * size + 4096);
    const auto got =
        retry([&] { return ::read(file.value, bytes.data() + size, bytes.size() - size); });
    if (got < 0) fail_reading(path, "read");
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  bytes.resize(size);
  return bytes;
}

MappedFile::MappedFile(const fs::path& path) {
  struct stat status {};
  const Descriptor file(open_regular(path, status));
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;  // mmap refuses an empty range
  void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (data == MAP_FAILED) fail_reading(path, "mmap");
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

}  // namespace graft
