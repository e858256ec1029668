// graft as a package: installed, found by a project of another folder, and put to work there.
#include <algorithm>
#include <cstdlib>

#include "experiments/harness/record.h"
#include "tests/experiments/program.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

}  // namespace

TEST_CASE("a project of two files finds the installed graft, adds a method and ablates it") {
  const Folder folder;
  const fs::path build = fs::read_symlink("/proc/self/exe").parent_path().parent_path();
  const fs::path example = fs::path(__FILE__).parent_path() / "../../experiments/example";
  const fs::path prefix = folder / "prefix", own = folder / "own", moved = folder / "moved";
  const auto runs = [](const std::string& command) {
    const Said s = shell_says(command);
    CAPTURE(command);
    CAPTURE(s.text);
    REQUIRE(s.status == 0);
    return s.text;
  };
  runs("cmake --install " + quoted(build) + " --prefix " + quoted(prefix));
  fs::rename(prefix, moved);  // nothing in it says where it was put
  fs::rename(moved / "share/graft/bases/tiny", moved / "share/graft/bases/little");
  runs("OMP_NUM_THREADS=1 " + quoted(moved / "bin/graft") +
       " generate --model little --prompt The --max-tokens 3");
  fs::rename(moved / "share/graft/bases/little", moved / "share/graft/bases/tiny");
  fs::create_directories(own);
  for (const char* file : {"CMakeLists.txt", "tied.cpp"}) fs::copy(example / file, own / file);
  runs("cmake -S " + quoted(own) + " -B " + quoted(own / "build") +
       " -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_FLAGS_RELEASE=-O0 -DCMAKE_CXX_COMPILER=" +
       quoted(GRAFT_CXX) + " -DCMAKE_PREFIX_PATH=" + quoted(moved));
  runs("cmake --build " + quoted(own / "build"));
  // Tiny tensors on one thread do not wait for others to wake.
  const std::string program = "OMP_NUM_THREADS=1 " + quoted(own / "build/tied");
  const fs::path out = folder / "out";
  const std::string said = runs(program + " " + quoted(out));
  contains(said, "encoder-decoder:\n");
  contains(said, "kept    trainable count = formula = what was allocated");
  CHECK(said.find("BROKEN") == std::string::npos);
  contains(said, "report: " + (out / "ablation/report.html").string());
  const auto recorded = Records(out / "ablation").runs();
  REQUIRE(recorded.size() == 8);  // two methods and two baselines, two seeds each
  const auto trained = [&](const std::string& method) {
    for (const Run& run : recorded)
      if (run.arm.config.at("method") == method) return run.metrics.at("trainable");
    return -1.0;
  };
  // r (in + L out) for each of two parts of 3 layers, and r (in + out) for each of 6 matrices.
  CHECK(trained("tied:r=3,on=q+v") == 2 * 3 * (96 + 3 * 96));
  CHECK(trained("lora:r=2,on=q+v") == 6 * 2 * (96 + 96));
  CHECK(trained("tied:r=3,on=q+v") == trained("lora:r=2,on=q+v"));
  contains(runs(program + " graft methods"), "tied");
  contains(runs(program + " graft check tied:r=1,on=up"), "every edit fired: 3 edits");
  const Said unknown = shell_says(program + " graft check tied:rank=1");
  CHECK(unknown.status == 1);
  contains(unknown.text, "tied: unknown option 'rank'; it takes layers, on, r");
}
