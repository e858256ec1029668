// experiments/quickstart.cpp as its user runs it, and the base that it starts from.
#include <doctest/doctest.h>

#include <cstdlib>

#include "experiments/data/task_folders.h"
#include "nn/generate.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "peft/folder.h"
#include "peft/methods.h"
#include "tests/experiments/program.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

fs::path experiments() { return fs::path(__FILE__).parent_path() / "../../experiments"; }

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

// What stands behind `mark` up to the end of its line, for each line that has it.
std::vector<std::string> behind(const std::string& text, const std::string& mark) {
  std::vector<std::string> all;
  for (std::size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1))
    all.push_back(text.substr(at + mark.size(), text.find('\n', at) - at - mark.size()));
  return all;
}

}  // namespace

TEST_CASE("the quickstart adapts the tiny base to a text, and its adapter writes so again") {
#ifdef GRAFT_SANITIZED
  MESSAGE("SKIPPED: 300 steps are two minutes under the sanitizers; other cases run what it does");
  return;
#endif
  const Folder folder;
  const fs::path base = experiments() / "bases/tiny", out = folder / "adapter";
  const std::string prompt = "Weather for the harbour,";
  const Said s = program_says("", "quickstart",
                              quoted(base) + " " + quoted(experiments() / "quickstart.txt") + " " +
                                  quoted(out) + " '" + prompt + "'");
  CAPTURE(s.text);
  REQUIRE(s.status == 0);
  contains(s.text, "trainable params: 9216 || all params: 439968 || trainable%: 2.0946977");
  contains(s.text, "adapter in " + out.string() + "; base unchanged\n");
  const auto losses = behind(s.text, "  loss ");
  REQUIRE(losses.size() == 10);
  CHECK(std::atof(losses.back().c_str()) < 0.25 * std::atof(losses.front().c_str()));
  const auto before = behind(s.text, "before: "), after = behind(s.text, "after: ");
  REQUIRE(before.size() == 1);
  REQUIRE(after.size() == 1);
  CHECK(before[0] != after[0]);
  CHECK(after[0].find("wind from the ") != std::string::npos);

  const auto model = load_model(base);
  const Tokenizer tokenizer = Tokenizer::load(base);
  const auto written = [&] {
    const auto answer =
        generate(*model, {tokenizer.encode(prompt)}, {.stop = {model->arch().sep}}).at(0);
    return prompt + tokenizer.decode(answer.tokens, true);
  };
  CHECK(written() == before[0]);
  const auto adaptation = load_adapter(out, all_methods(), *model);
  CHECK(adaptation->spec() == "lora:r=8,on=q+v");
  CHECK(written() == after[0]);
  const Said again =
      program_says("", "graft", "generate --adapter " + quoted(out) + " --prompt '" + prompt + "'");
  CHECK(again.status == 0);
  CHECK(prompt + again.text == after[0] + "\n");

  const fs::path merged = folder / "merged";
  CHECK(program_says("", "graft", "merge " + quoted(out) + " --out " + quoted(merged)).status == 0);
  const Said twice = program_says("", "graft", "merge " + quoted(out) + " --out " + quoted(merged));
  CHECK(twice.status == 1);
  contains(twice.text, "holds a model already");
  const Said whole = program_says(
      "", "graft", "generate --model " + quoted(merged) + " --prompt '" + prompt + "'");
  CHECK(whole.status == 0);
  CHECK(whole.text == again.text);
}

TEST_CASE("graft generate puts instructions into the form in which training showed them") {
  const Folder folder;
  const auto says = [&](const std::string& prompt, const std::string& tail) {
    const Said s = program_says("", "graft",
                                "generate --model " + quoted(experiments() / "bases/tiny") +
                                    " --prompt '" + prompt + "' --max-tokens 12" + tail);
    CAPTURE(s.text);
    CHECK(s.status == 0);
    return s.text;
  };
  const std::string task = "Say what the weather is", place = "the harbour";
  const std::string alone = says(task, " --alpaca"), both = says(task + "\t" + place, " --alpaca");
  CHECK(alone == says(alpaca_prompt(task, ""), ""));
  CHECK(both == says(alpaca_prompt(task, place), ""));
  CHECK(alone != says(task, ""));
  CHECK(alone != both);
  const Said s = program_says("", "graft", "generate --model tiny --alpaca --prompt '\tharbour'");
  CHECK(s.status == 1);
  contains(s.text, "has no instruction before its tab");
}

TEST_CASE("the quickstart says in one line what it cannot read") {
  const Folder folder;
  const auto refused = [](const std::string& arguments, const std::string& why) {
    const Said s = program_says("", "quickstart", arguments);
    CHECK(s.status == 1);
    contains(s.text, why);
    CHECK(std::count(s.text.begin(), s.text.end(), '\n') == 1);
  };
  refused(quoted(folder / "nowhere"), "nowhere");
  refused(quoted(experiments() / "bases/tiny") + " " + quoted(folder / "no.txt"), "no.txt");
}

TEST_CASE("the tiny base has the shape of its preset") {
  const Arch arch = load_arch(experiments() / "bases/tiny");
  CHECK(arch == arch_named("graft-tiny"));
  CHECK(Tokenizer::load(experiments() / "bases/tiny").size() == arch.vocab);
}
