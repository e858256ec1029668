// The `graft` program as its user runs it: output, errors, exit codes.
#include <doctest/doctest.h>

#include "nn/files/atomic.h"
#include "tests/experiments/commands.h"
#include "tests/experiments/small_language.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("graft trains an adapter of a language task and generates with it") {
  const Shelf shelf;
  const std::string out = (shelf.folder / "run").string();
  Said s = graft_says(shelf.folder.path, "train --model decoder --task '" + shelf.task() +
                                             "' --method lora:r=2 --epochs 1 --lr 1e-2 --out '" +
                                             out + "'");
  CAPTURE(s.text);
  CHECK(s.status == 0);
  contains(s.text, "adapter in " + out);
  s = graft_says(shelf.folder.path, "generate --adapter '" + out +
                                        "/adapter' --prompt wolf --prompt hen "
                                        "--max-tokens 5 --beams 2");
  CHECK(s.status == 0);
  contains(s.text, "wolf\n  -> ");
  contains(s.text, "hen\n  -> ");
  const Said bare =
      graft_says(shelf.folder.path, "generate --model decoder --prompt wolf --max-tokens 3");
  CHECK(bare.status == 0);
  CHECK(bare.text.ends_with("\n"));
}

TEST_CASE("graft ends with one line and a status that is not 0 where a command cannot be done") {
  const Shelf shelf;
  const auto refused = [&](const std::string& arguments, const std::string& why) {
    const Said s = graft_says(shelf.folder.path, arguments);
    CAPTURE(arguments);
    CHECK(s.status != 0);
    contains(s.text, why);
    CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
  };
  refused("fly", "no command is called 'fly'");
  refused("generate --model decoder", "no prompt");
  refused("generate --model encoder --prompt wolf", "need a decoder");
  refused("generate --model nowhere --prompt wolf", "model 'nowhere'");
  refused("generate --model decoder --prompt wolf --temperature 0.5", "in sampling only");
  refused("generate --adapter nowhere --prompt wolf", "nowhere");
  refused("eval nowhere", "nowhere");
  refused("train --model decoder --task nothing --out '" + (shelf.folder / "x").string() + "'",
          "task 'nothing'");
}
