// Several adapters on the command line: one for each prompt, several made into one, merged.
#include <doctest/doctest.h>

#include "nn/files/atomic.h"
#include "tests/experiments/program.h"
#include "tests/experiments/small_language.h"

using namespace graft;
using namespace graft::testing;

namespace {

// Runs graft over a shelf of small bases.
struct Runs {
  const Shelf shelf;
  const std::string at = shelf.folder.path.string() + "/";
  std::string operator()(const std::string& arguments, int status = 0) const {
    const Said s = graft_says(shelf.folder.path, arguments);
    CAPTURE(arguments);
    CAPTURE(s.text);
    CHECK(s.status == status);
    return s.text;
  }
  std::string trained(const std::string& name, const std::string& method,
                      const std::string& more = "") const {
    (*this)("train --model decoder --task '" + shelf.task() + "' --method '" + method +
            "' --epochs 1 --lr 3e-2 --out " + at + name + more);
    return at + name + "/adapter";
  }
};

// What stands behind `mark` up to the end of its line.
std::string behind(const std::string& text, const std::string& mark) {
  const std::size_t from = text.find(mark);
  REQUIRE(from != std::string::npos);
  return text.substr(from + mark.size(), text.find('\n', from) - from - mark.size());
}

}  // namespace

TEST_CASE("graft generate gives each prompt its own adapter, in one batch") {
  const Runs run;
  const std::string a = run.trained("a", "lora:r=2"), b = run.trained("b", "prefix:length=2"),
                    whole = run.trained("c", "layernorm");
  const std::string tail = " --max-tokens 5",
                    both = "generate --adapter a=" + a + " --adapter b=" + b;
  write_file_atomically(run.shelf.folder / "prompts", "a\twolf\nbase\twolf\nb\twolf\nb\then\n");
  const std::string all = run(both + " --prompt-file " + run.at + "prompts" + tail);
  std::vector<std::string> said;
  for (std::size_t at = all.find("  -> "); at != std::string::npos; at = all.find("  -> ", at + 1))
    said.push_back(all.substr(at + 5, all.find('\n', at) - at - 5));
  REQUIRE(said.size() == 4);
  const auto alone = [&](const std::string& adapter, const std::string& prompt) {
    // twice, so that it is shown as of several
    return behind(
        run("generate --adapter " + adapter + " --prompt " + prompt + " --prompt " + prompt + tail),
        "  -> ");
  };
  CHECK(said[0] == alone(a, "wolf"));
  CHECK(said[2] == alone(b, "wolf"));
  CHECK(said[3] == alone(b, "hen"));
  CHECK(said[1] ==
        behind(run("generate --model decoder --prompt wolf --prompt wolf" + tail), "  -> "));
  contains(run(both + " --prompt wolf", 1), "prompt 'wolf' names no adapter");
  contains(run(both + " --prompt 'd\twolf'", 1),
           "no adapter is called 'd'; there are a, b, and base");
  contains(run("generate --adapter " + a + " --adapter " + b + " --prompt wolf", 1), "NAME=FOLDER");
  contains(run("generate --adapter a=" + a + " --adapter c=" + whole + " --prompt 'a\twolf'", 1),
           "adapter 'c' cannot be routed: layernorm trains copies");
}

TEST_CASE("graft combine makes LoRA adapters into one, which graft opens as any other") {
  const Runs run;
  const std::string a = run.trained("a", "lora:r=2"), b = run.trained("b", "lora:r=2,on=q"),
                    c = run.trained("c", "ia3");
  const std::string two =
      "combine --adapter " + a + " --adapter " + b + " --weights .7,.3 --out " + run.at;
  contains(run(two + "cat"), "2 adapters by cat in " + run.at + "cat: lora:r=4,on=q+v");
  contains(run("eval " + run.at + "cat"), "test loss ");
  contains(run(two + "ties --how ties --density .5"), "by ties in ");
  contains(run("generate --adapter " + run.at + "ties --prompt wolf --prompt hen --max-tokens 3"),
           "wolf\n  -> ");
  contains(run(two + "svd --how svd --rank 1"), "cut off 0.");
  contains(run(two + "x --how ties", 1), "density=0 with how=ties");
  contains(run(two + "x --seed 3", 1), "seed=3 with how=cat; it is of dare");
  contains(run(two + "x --how svd --rank 500", 1), "rank=500 with how=svd; need 1..4");
  contains(run(two + "x --head 1", 1), "these adapters have no heads");
  contains(
      run("combine --adapter " + a + " --adapter " + c + " --weights 1,1 --out " + run.at + "x", 1),
      "is ia3; only LoRA's matrices can be combined");
  contains(run("combine --adapter " + a + " --weights 1,1 --out " + run.at + "x", 1),
           "2 weights for 1 adapters");
  // itself, by a weight of one
  run("combine --adapter " + a + " --weights 1 --out " + run.at + "same");
  CHECK(run("eval " + run.at + "same") == run("eval " + a));
}

TEST_CASE("of adapters with heads, graft combine takes the one that it is told to") {
  const Runs run;
  write_tsv_task(data(), run.shelf.folder / "beasts");
  for (const char* name : {"a", "b"})
    run("train --model encoder --task " + run.at +
        "beasts --method lora:r=2 --epochs 1 --lr 1e-2 "
        "--seed " +
        std::to_string(name[0]) + " --out " + run.at + name);
  const std::string both = "combine --adapter " + run.at + "a/adapter --adapter " + run.at +
                           "b/adapter --weights 1,0 --out " + run.at;
  contains(run(both + "none", 1), "have heads of their tasks, which are not combined; --head 1");
  contains(run(both + "none --head 3", 1), "need 1..2");
  run(both + "first --head 1");
  CHECK(run("eval " + run.at + "first") == run("eval " + run.at + "a/adapter"));
}

TEST_CASE("graft eval scores several adapters side by side as each of them alone") {
  const Runs run;
  write_tsv_task(data(), run.shelf.folder / "beasts");
  const std::string train =
      "train --model encoder --task " + run.at + "beasts --epochs 1 --lr 1e-2 --out " + run.at;
  run(train + "a --method lora:r=2");
  run(train + "b --method prefix:length=2 --head dense --pool cls");
  run(train + "c --method layernorm");
  const std::string said = run("eval --split dev --adapter a=" + run.at +
                               "a/adapter --adapter b=" + run.at + "b/adapter");
  const std::string a = run("eval --split dev " + run.at + "a/adapter"),
                    b = run("eval --split dev " + run.at + "b/adapter");
  CHECK(said == "a: " + a + "b: " + b);
  // One that holds constants beside what it trains.
  run(train +
      "e --method 'hyperformer++:norms=no,task=described,hidden=6,i=4,m=2,std=0.1,text=a beast'");
  contains(run("eval --split dev --adapter a=" + run.at + "a/adapter --adapter e=" + run.at +
               "e/adapter"),
           "e: " + run("eval --split dev " + run.at + "e/adapter"));
  contains(run("eval --adapter a=" + run.at + "a/adapter --adapter c=" + run.at + "c/adapter", 1),
           "adapter 'c' cannot be routed: layernorm trains copies");
  contains(run("eval --adapter " + run.at + "a/adapter", 1), "NAME=FOLDER");
  contains(run("eval --adapter d=" + run.trained("d", "lora:r=1"), 1), "writes text");
  contains(run("eval --adapter a=x --task y", 1),
           "goes with --split, --device and --compute alone");
}

TEST_CASE("graft merge reports the difference of the outputs, and graft count what merges") {
  const Runs run;
  const std::string a = run.trained("a", "lora:r=2"), p = run.trained("p", "prefix:length=2");
  const std::string said = run("merge " + a + " --out " + run.at + "merged");
  contains(said, " outputs, largest difference ");
  contains(said, " units of its last place); ");
  contains(said, "unmerging needs no memory: the base's are read from its file again");
  contains(run("merge " + p + " --out " + run.at + "x", 1),
           "prefix: it cannot be merged: it gives attention keys and values of its own");
  CHECK_FALSE(fs::exists(run.at + "x"));

  const auto merges = [&](const std::string& spec) {
    const std::string of = " --arch llama-7b --method '" + spec + "'";
    const std::string counted = behind(run("count" + of), "merges: ");
    CHECK(behind(run("explain" + of), "merges: ") == counted);
    return counted;
  };
  CHECK(merges("lora:r=8") == "yes: lora");
  const auto starts = [&](const std::string& spec, const std::string& as) {
    contains(run("explain --arch llama-7b --method '" + spec + "'"), "  from " + as + "\n");
  };
  starts("lora:r=8", "N(0, 0.00902)");  // A: 1 / sqrt(3 in)
  starts("lora:r=8", "0");
  starts("layernorm", "the base's");
  starts("qknorm:length=100", "13.27");
  starts("prompt:length=2,init=vocab", "embeddings, init=vocab");
  CHECK(merges("lora:r=8|prompt:length=5") ==
        "no; lora merges; prompt: it puts rows of its own into a text or moves a text's positions, "
        "which is no "
        "change of a weight");
}
