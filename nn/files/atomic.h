// Whole-file reading and writing in which a failure never costs the file that stood there before.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace graft {

// Writes a file under a temporary name in the same folder; commit() puts it in place in one step.
// Until then, and whenever anything fails, an older file of that name stays as it was. Dropped
// without commit(), the temporary file is removed; one that a killed process left is removed by the
// next to write a file of that name. Every failing system call throws Error with the
// file, the operation and the system's reason. A symbolic link is followed: its target is replaced.
// The new file takes over the permissions of the old one.
class AtomicFile {
 public:
  // Throws when the folder is missing or not writable, or `path` is anything but a regular file
  // (so that no one can replace a device or a folder by its content).
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view bytes);
  void write(std::span<const std::byte> bytes);
  void commit();  // flushes to the disk and renames; nothing may be written afterwards

 private:
  void abandon() noexcept;
  [[noreturn]] void fail_at(const char* operation);

  std::filesystem::path path_, temporary_;
  int file_ = -1;
};

// The same for content that is at hand in one piece.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// The bytes of a regular file. Throws Error naming the file when it cannot be read.
std::string read_file(const std::filesystem::path& path);

// A read-only view of a file's bytes, loaded page by page as they are touched. The view follows
// nothing: a file replaced by AtomicFile leaves it valid, one shortened in place does not.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace graft
