// Words that prompts start from become tokens before a spec is recorded.
#include "experiments/runs/prompt_words.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

TEST_CASE("a spec's text and a task's labels become ids, and other specs stay as they are") {
  const auto base = std::filesystem::path(__FILE__).parent_path() / "../../experiments/bases/tiny";
  const Tokenizer tokenizer = Tokenizer::load(base);
  const auto ids = [&](const std::string& text, const char* between) {
    return fmt::format("{}", fmt::join(tokenizer.encode(text), between));
  };
  TaskData task;
  task.name = "toy", task.labels = {"good", "bad weather"};
  const auto made = [&](const std::string& spec) { return with_tokens(spec, tokenizer, task); };
  CHECK(made("lora:r=8, on=q+v") == "lora:r=8, on=q+v");
  CHECK(made("prompt:length=9,init=text,text=the city of the sun|lora:r=2") ==
        "prompt:init=text,length=9,tokens=" + ids("the city of the sun", "-") + "|lora:r=2");
  CHECK(made("prompt:init=labels,length=9") ==
        "prompt:init=labels,length=9,tokens=" + ids(" good", ".") + "-" + ids(" bad weather", "."));
  CHECK(made("prompt:init=labels,tokens=3") == "prompt:init=labels,tokens=3");
  contains(error_of([&] { made("prompt:init=text,text=a,tokens=3"); }), "need one of them");
  task.labels.clear();
  contains(error_of([&] { made("prompt:init=labels"); }), "task toy has no labels");
}
