// Files: atomic replacement, mapping.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <utility>

#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("a file written atomically reads back whole and leaves nothing beside it") {
  const Folder folder;
  const auto path = folder / "a.txt";
  write_file_atomically(path, "first");
  write_file_atomically(path, std::string("sec\0nd", 6));
  CHECK(read_file(path) == std::string("sec\0nd", 6));
  AtomicFile file(path);
  file.write("one, ");
  file.write("two");
  CHECK(read_file(path) == std::string("sec\0nd", 6));
  file.commit();
  CHECK(read_file(path) == "one, two");
  CHECK_THROWS_AS(file.write("more"), Error);
  CHECK_THROWS_AS(file.commit(), Error);
  CHECK(folder.entries() == 1);
}

TEST_CASE("an atomic file dropped without commit leaves the old file and no other") {
  const Folder folder;
  write_file_atomically(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    CHECK(folder.entries() == 2);
  }
  CHECK(read_file(folder / "a") == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("what a killed writer left is removed by the next, what a living one writes is not") {
  const Folder folder;
  const auto put = [&](const char* name) { std::ofstream(folder / name) << "half"; };
  put(".a.4000000-7.tmp");  // no process has this number
  put(".a.1-0.tmp");        // one has, maybe of another machine: it holds no lock
  for (const char* other :
       {".b.4000000-7.tmp", ".a.4000000-x.tmp", ".a.-7.tmp", ".a.tmp", "a.1-0.tmp"})
    put(other);
  {
    AtomicFile living(folder / "a");
    living.write("slow");
    CHECK(folder.entries() == 6);
    write_file_atomically(folder / "a", "quick");
    CHECK(folder.entries() == 7);
    living.commit();
  }
  CHECK(read_file(folder / "a") == "slow");
  CHECK(folder.entries() == 6);
  // A writer that is killed, in a process of its own.
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(folder / "a");
    file.write("never");
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(folder.entries() == 7);
  write_file_atomically(folder / "a", "after");
  CHECK(folder.entries() == 6);
  CHECK(read_file(folder / "a") == "after");
}

TEST_CASE("a disk that fills up costs neither the old file nor a leftover") {
  const Folder folder;
  const auto path = folder / "a";
  write_file_atomically(path, "old");
  std::string message;
  {
    const FileSizeLimit limit(1000);
    message = error_of([&] { write_file_atomically(path, std::string(5000, 'x')); });
  }
  contains(message, path.string());
  contains(message, "write: File too large");
  CHECK(read_file(path) == "old");
  CHECK(folder.entries() == 1);
}

TEST_CASE("writing where no file can stand names the file and the reason") {
  const Folder folder;
  const auto missing = folder / "no" / "a";
  contains(error_of([&] { write_file_atomically(missing, ""); }), "No such file or directory");
  contains(error_of([&] { write_file_atomically(missing, ""); }), missing.string());
  contains(error_of([&] { write_file_atomically(folder.path, ""); }), "a folder stands there");
  contains(error_of([&] { write_file_atomically("/dev/full", ""); }), "a device or pipe stands");
  contains(error_of([&] { write_file_atomically(folder / "", ""); }), "names no file");
  fs::create_symlink("self", folder / "self");
  contains(error_of([&] { write_file_atomically(folder / "self", ""); }), "circle");
  if (::geteuid() == 0) return;  // root may write anywhere
  fs::permissions(folder.path, fs::perms::owner_read | fs::perms::owner_exec);
  contains(error_of([&] { write_file_atomically(folder / "a", ""); }), "Permission denied");
  fs::permissions(folder.path, fs::perms::owner_all);
}

TEST_CASE("writing through a symbolic link replaces its target and keeps its permissions") {
  const Folder folder;
  fs::create_directory(folder / "deep");
  fs::create_symlink("deep/target", folder / "link");
  write_file_atomically(folder / "link", "made");
  CHECK(read_file(folder / "deep" / "target") == "made");
  fs::permissions(folder / "deep" / "target", fs::perms::owner_read | fs::perms::owner_write);
  write_file_atomically(folder / "link", "again");
  CHECK(fs::is_symlink(folder / "link"));
  CHECK(read_file(folder / "deep" / "target") == "again");
  CHECK(fs::status(folder / "deep" / "target").permissions() ==
        (fs::perms::owner_read | fs::perms::owner_write));
}

TEST_CASE("reading or mapping what is no readable file names it") {
  const Folder folder;
  contains(error_of([&] { read_file(folder / "none"); }), "No such file");
  contains(error_of([&] { read_file(folder.path); }), "it is a folder");
  contains(error_of([&] { MappedFile map(folder / "none"); }), (folder / "none").string());
  contains(error_of([&] { MappedFile map(folder.path); }), "it is a folder");
  contains(error_of([&] { MappedFile map("/dev/zero"); }), "it is a device or pipe");
}

TEST_CASE("a mapped file moves and outlives the file's replacement; an empty one maps to nothing") {
  const Folder folder;
  write_file_atomically(folder / "a", "abc");
  MappedFile map(folder / "a");
  MappedFile moved = std::move(map);
  write_file_atomically(folder / "a", "xyz");
  CHECK(map.bytes().empty());
  REQUIRE(moved.bytes().size() == 3);
  CHECK(moved.bytes()[0] == std::byte{'a'});
  moved = MappedFile(folder / "a");
  CHECK(moved.bytes()[0] == std::byte{'x'});
  write_file_atomically(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").bytes().empty());
  CHECK(read_file(folder / "empty").empty());
}
