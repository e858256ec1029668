// What a folder says of generating text.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "nn/files/atomic.h"
#include "nn/models/generation.h"
#include "tests/nn/folder.h"

using namespace graft;
using namespace graft::testing;

namespace {

struct Hub : Folder {
  void put(const char* name, const std::string& text) const {
    write_file_atomically(path / name, text);
  }
};

}  // namespace

TEST_CASE("all end tokens of a folder are read, from generation_config.json before config.json") {
  const Hub hub;
  hub.put("config.json", R"({"eos_token_id": 2, "num_beams": 1, "repetition_penalty": 1.0})");
  CHECK(read_generation(hub.path).stop == std::vector<int>{2});
  CHECK(read_generation(hub.path).settings.empty());
  hub.put("config.json", R"({"eos_token_id": [7, 9], "suppress_tokens": []})");
  CHECK(read_generation(hub.path).stop == std::vector<int>{7, 9});
  hub.put("generation_config.json", R"({"eos_token_id": [128001, 128009], "do_sample": true,
                                        "repetition_penalty": 1.2, "bad_words_ids": null})");
  const GenerationFile says = read_generation(hub.path);
  CHECK(says.stop == std::vector<int>{128001, 128009});
  CHECK(says.settings == std::vector<std::string>{"do_sample=true", "repetition_penalty=1.2"});
  hub.put("generation_config.json", "{}");
  CHECK(read_generation(hub.path).stop.empty());
}

TEST_CASE("settings that graft has no option for are named, too, unless they are calm") {
  const Hub hub;
  hub.put("generation_config.json",
          R"({"stop_strings": null, "token_healing": false, "force_words_ids": [],
              "watermarking_config": null, "constraints": null, "dola_layers": null})");
  CHECK(read_generation(hub.path).settings.empty());
  hub.put("generation_config.json",
          R"({"stop_strings": ["\n\n"], "token_healing": true, "force_words_ids": [[3]],
              "watermarking_config": {"bias": 2.0}, "constraints": [1], "dola_layers": "low"})");
  CHECK(read_generation(hub.path).settings ==
        std::vector<std::string>{R"(stop_strings=["\n\n"])", "token_healing=true",
                                 R"(watermarking_config={"bias":2.0})", "force_words_ids=[[3]]",
                                 "constraints=[1]", R"(dola_layers="low")"});
}

TEST_CASE("an end token that is no id is an error that names the file") {
  const Hub hub;
  for (const char* wrong : {"\"</s>\"", "-2", "1.5", "[3, null]", "4294967296"}) {
    CAPTURE(wrong);
    hub.put("generation_config.json", std::string("{\"eos_token_id\": ") + wrong + "}");
    contains(error_of([&] { read_generation(hub.path); }), "generation_config.json: eos_token_id");
  }
  hub.put("generation_config.json", "[]");
  contains(error_of([&] { read_generation(hub.path); }), "need an object");
}

TEST_CASE("a saved model keeps its source's generation_config.json, or its several end tokens") {
  const Hub from, to;
  from.put("config.json", R"({"eos_token_id": 2})");
  keep_generation(from.path, to.path);
  CHECK(to.entries() == 0);
  from.put("config.json", R"({"eos_token_id": [7, 9]})");
  keep_generation(from.path, to.path);
  CHECK(read_generation(to.path).stop == std::vector<int>{7, 9});
  from.put("config.json", R"({"eos_token_id": 7, "bos_token_id": 1, "num_beams": 4, "vocab": 9})");
  keep_generation(from.path, to.path);
  CHECK(read_file(to / "generation_config.json") ==
        nlohmann::json{{"eos_token_id", 7}, {"bos_token_id", 1}, {"num_beams", 4}}.dump(2) + "\n");
  from.put("generation_config.json", R"({"eos_token_id": 5, "top_p": 0.9})");
  keep_generation(from.path, to.path);
  CHECK(read_file(to / "generation_config.json") == read_file(from / "generation_config.json"));
}
