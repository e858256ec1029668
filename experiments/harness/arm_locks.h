// Who is at which arm: jobs that write one results folder divide the trials of a search among them.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

namespace graft {

// A file of the folder whose bytes stand for arms; the job that has a byte locked works on its
// arm. The system takes the locks of a job that ends, however it ends, so none is ever left behind.
class ArmLocks {
 public:
  // Makes the folder and FOLDER/.arm_locks if missing. Throws where it cannot be opened.
  explicit ArmLocks(const std::filesystem::path& folder);
  ~ArmLocks();
  ArmLocks(const ArmLocks&) = delete;
  ArmLocks& operator=(const ArmLocks&) = delete;

  // Held until it goes out of scope.
  class Held {
   public:
    Held(int file, long long place) : file_(file), place_(place) {}
    Held(Held&& other) noexcept : file_(other.file_), place_(other.place_) { other.file_ = -1; }
    Held& operator=(Held&& other) noexcept {
      std::swap(file_, other.file_), std::swap(place_, other.place_);
      return *this;
    }
    ~Held();

   private:
    int file_;
    long long place_;
  };
  // None where another job has it. `key` is an arm's (32 hex digits). Throws where the file system
  // has no locks.
  std::optional<Held> take(std::string_view key) const;

 private:
  std::filesystem::path path_;
  int file_ = -1;
};

}  // namespace graft
