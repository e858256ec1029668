// What the fuzzers found, and what they start from, without libFuzzer.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <new>
#include <set>

#include "nn/files/atomic.h"
#include "tests/fuzz/targets.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

const fs::path kHere = fs::path(__FILE__).parent_path();

// What a target throws that is no Error, or breaks its contract otherwise.
std::string broken_by(const fuzz::Target& target, const std::string& bytes) {
  try {
    fuzz::run(target, bytes);
  } catch (const std::exception& broken) {
    return broken.what();
  }
  return "";
}

std::vector<fs::path> files_in(const fs::path& folder) {
  std::vector<fs::path> files;
  if (fs::exists(folder))
    for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  return files;
}

}  // namespace

TEST_CASE("inputs that once broke a reader are read, or refused with an Error that can be shown") {
  std::size_t count = 0;
  for (const fuzz::Target& target : fuzz::targets())
    for (const fs::path& file : files_in(kHere / "regressions" / target.name)) {
      CAPTURE(file);
      CHECK(broken_by(target, read_file(file)) == "");
      ++count;
    }
  CHECK(count > 5);
  for (const fs::path& folder : files_in(kHere / "regressions"))
    CHECK(std::ranges::any_of(fuzz::targets(),
                              [&](const auto& t) { return folder.filename() == t.name; }));
}

TEST_CASE("every seed of the fuzzers is a file that its reader takes") {
  const Folder seeds;
  const std::string command =
      "bash '" + (kHere / "seeds.sh").string() + "' '" + seeds.path.string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  // What a target asks for last, to see the message; and seeds that are meant to be half a file.
  const std::set<std::string> answers{"no tensor \"no such tensor\"", "no column 'no such column'"};
  const std::set<std::string> halves{"safetensors/cut", "adapter/config", "adapter/half",
                                     "folder/shards"};
  for (const fuzz::Target& target : fuzz::targets()) {
    const auto files = files_in(seeds.path / target.name);
    CHECK(files.size() > 2);
    for (const fs::path& file : files) {
      const std::string name = target.name + ("/" + file.filename().string());
      CAPTURE(name);
      const std::string said = error_of([&] { target.read(read_file(file)); });
      CAPTURE(said);
      const bool answered = std::ranges::any_of(
          answers, [&](const auto& answer) { return said.find(answer) != said.npos; });
      CHECK((said == "(no error)" || answered) == !halves.contains(name));
    }
  }
}

TEST_CASE("a fuzzer's contract is broken by an exception that is no Error, and by a mute one") {
  CHECK(broken_by({"", [](std::string_view) { fail("x: {}", 1); }}, "") == "");
  contains(broken_by({"", [](std::string_view) { throw std::bad_alloc(); }}, ""), "bad_alloc");
  contains(broken_by({"", [](std::string_view) { (void)std::string().at(1); }}, ""), "no Error");
  contains(broken_by({"", [](std::string_view) { throw Error(""); }}, ""), "no message");
  contains(broken_by({"", [](std::string_view) { throw Error("a\xff"); }}, ""), "no message");
}
