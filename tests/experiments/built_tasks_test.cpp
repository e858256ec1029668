// Kept tasks are those that are built, and a file that is none of them is made anew.
#include <doctest/doctest.h>

#include <fstream>

#include "experiments/data/built_tasks.h"
#include "nn/files/atomic.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace fs = std::filesystem;

TEST_CASE("a task that was kept is the one that is built, and says so of a version") {
  const fs::path packages = default_data_dir() / "packages", wordnet = find_wordnet(packages);
  if (wordnet.empty()) {
    MESSAGE("SKIPPED: WordNet is not here; experiments/data/fetch.sh unpacks it");
    return;
  }
  static const Folder folder;
  const fs::path file = folder.path / "topic.task";
  static const std::uint64_t hash = [&] {  // once for all the parts of this case
    const std::uint64_t of_built = hash_of(built_task("topic", wordnet, packages, folder.path));
    CHECK(hash_of(build_task("topic", WordNet::load(wordnet), packages)) == of_built);
    return of_built;
  }();
  REQUIRE(fs::exists(file));
  const auto written = fs::last_write_time(file);

  SUBCASE("read again, not made again") {
    CHECK(hash_of(built_task("topic", wordnet, packages, folder.path)) == hash);
    CHECK(fs::last_write_time(file) == written);
  }
  SUBCASE("a damaged, cut or foreign file is made anew") {
    const std::string whole = read_file(file);
    std::string flipped = whole;
    flipped[flipped.size() / 2] ^= 1;
    for (const std::string& bad :
         {flipped, whole.substr(0, whole.size() - 1), "graft task 0" + whole}) {
      write_file_atomically(file, bad);
      CHECK(hash_of(built_task("topic", wordnet, packages, folder.path)) == hash);
      CHECK(read_file(file) == whole);
    }
  }
  SUBCASE("where nothing can be written it is built each time") {
    std::ofstream(folder.path / "file") << "not a folder";
    CHECK(hash_of(built_task("topic", wordnet, packages, folder.path / "file")) == hash);
  }
  SUBCASE("a source that has changed makes it anew") {
    const Folder copy;
    fs::copy(wordnet, copy.path, fs::copy_options::recursive);
    (void)built_task("topic", copy.path, packages, folder.path);
    const std::string first = read_file(file);
    fs::last_write_time(copy.path / "data.noun", fs::file_time_type::clock::now());
    CHECK(hash_of(built_task("topic", copy.path, packages, folder.path)) == hash);
    CHECK(read_file(file) != first);
  }
}
