// What stands beside a model: special tokens around texts, and what is kept of a base's folder.
#include "nn/models/beside.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "nn/models/folder.h"
#include "nn/models/presets.h"
#include "tests/nn/folder.h"
#include "tests/nn/tokenizer_fixtures.h"

using namespace graft;
using namespace graft::testing;
using nlohmann::json;

namespace {

// llama3.json with another template around one text.
Tokenizer with_template(const Folder& folder, const std::vector<std::string>& before,
                        const std::vector<std::string>& behind) {
  json all = kinds::fixture_json("llama3.json");
  const Tokenizer plain = Tokenizer::load(kinds::fixture("llama3.json"));
  json around{{"type", "TemplateProcessing"}, {"special_tokens", json::object()}};
  const auto special = [&](const std::string& token) {
    around["special_tokens"][token] = {
        {"id", token}, {"ids", {plain.id(token)}}, {"tokens", {token}}};
    return json{{"SpecialToken", {{"id", token}, {"type_id", 0}}}};
  };
  json single = json::array(), pair;
  for (const std::string& token : before) single.push_back(special(token));
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 0}}}});
  for (const std::string& token : behind) single.push_back(special(token));
  around["single"] = single, around["pair"] = pair;
  all["post_processor"] = around;
  write_file_atomically(folder / "tokenizer.json", all.dump());
  return Tokenizer::load(folder / "tokenizer.json");
}

Arch decoder() {
  Arch arch = arch_named("llama-7b");
  arch.cls = arch.sep = arch.pad = -1;
  return arch;
}

}  // namespace

TEST_CASE("a decoder whose tokenizer closes texts begins them as the tokenizer does") {
  const Folder folder;
  const Tokenizer plain = Tokenizer::load(kinds::fixture("llama3.json"));
  REQUIRE(plain.specials().size() >= 2);
  const std::string first = plain.token(plain.specials()[0].id),
                    last = plain.token(plain.specials()[1].id);
  const Tokenizer both = with_template(folder, {first}, {last});
  CHECK(both.closes());
  CHECK(text_beginning(decoder(), both) == std::vector<std::int32_t>{both.id(first)});
  // Whole texts stand as transformers has them, both ends marked; so the folder keeps it.
  CHECK(tokenizer_beside(decoder(), both).encode_marked("the lists").ids ==
        both.encode_marked("the lists").ids);
  const Tokenizer end = with_template(folder, {}, {last});
  CHECK(text_beginning(decoder(), end).empty());
  CHECK(tokenizer_beside(decoder(), end).closes());
}

TEST_CASE("a tokenizer of encoders stands beside a decoder without its marks") {
  const Tokenizer bert = Tokenizer::load(kinds::fixture("bert"));
  CHECK(bert.closes());
  CHECK(bert.beginning() == std::vector<int>{bert.cls()});
  CHECK(text_beginning(decoder(), bert).empty());
  CHECK_FALSE(tokenizer_beside(decoder(), bert).closes());
  CHECK(tokenizer_beside(arch_named("bert-base"), bert).closes());
}

TEST_CASE("an encoder's special tokens are also found in the older files") {
  const fs::path bert = kinds::fixture("bert");
  REQUIRE(fs::exists(bert / "vocab.txt"));
  REQUIRE_FALSE(fs::exists(bert / "tokenizer.json"));
  Arch arch = arch_named("bert-base");
  arch.pad = arch.cls = arch.sep = arch.mask = -1;
  fill_ids(arch, bert);
  const Tokenizer tokenizer = Tokenizer::load(bert);
  CHECK(arch.pad == tokenizer.pad());
  CHECK(arch.cls == tokenizer.cls());
  CHECK(arch.sep == tokenizer.sep());
  CHECK(arch.mask == tokenizer.mask());
  arch = decoder();
  fill_ids(arch, bert);
  CHECK(arch.mask < 0);
  // Files of a kind that is not followed here say nothing, and are no reason not to open a model.
  const Folder alone;
  write_file_atomically(alone / "vocab.json", "{}");
  arch = arch_named("bert-base");
  arch.mask = -1;
  fill_ids(arch, alone.path);
  CHECK(arch.mask < 0);
}

TEST_CASE("a model made of a base keeps its chat template, its padding and its tokens' names") {
  const Folder from, to;
  const Tokenizer tokenizer = Tokenizer::load(kinds::fixture("llama3.json"));
  const std::string end = tokenizer.token(tokenizer.specials()[1].id);
  tokenizer.save(to / "tokenizer.json");
  const auto put = [](const fs::path& file, const json& values) {
    write_file_atomically(file, values.dump());
  };
  const auto kept = [&] { return json::parse(read_file(to / "tokenizer_config.json")); };
  put(to / "tokenizer_config.json", {{"tokenizer_class", "PreTrainedTokenizerFast"}});
  keep_tokenizer_config(from.path, to.path);  // there is nothing to keep
  CHECK(kept().size() == 1);
  put(from / "tokenizer_config.json", {{"tokenizer_class", "LlamaTokenizer"},
                                       {"chat_template", "{{ messages }}"},
                                       {"padding_side", "left"},
                                       {"eos_token", {{"content", end}, {"lstrip", false}}},
                                       {"pad_token", "<not there>"},
                                       {"unk_token", nullptr}});
  write_file_atomically(from / "chat_template.jinja", "{{ bos_token }}");
  keep_tokenizer_config(from.path, to.path);
  CHECK(kept() == json{{"tokenizer_class", "PreTrainedTokenizerFast"},
                       {"chat_template", "{{ messages }}"},
                       {"padding_side", "left"},
                       {"eos_token", end}});
  CHECK(read_file(to / "chat_template.jinja") == "{{ bos_token }}");
}

TEST_CASE("an end token of GPT-2's own vocabulary is none of a smaller one") {
  const Folder folder;
  const std::string keys =
      R"("architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
         "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2, "layer_norm_epsilon": 1e-5,
         "resid_pdrop": 0.1, "embd_pdrop": 0.1, "attn_pdrop": 0.1)";
  const auto arch = [&](const std::string& more) {
    write_file_atomically(folder / "config.json", "{" + keys + more + "}");
    return load_arch(folder.path);
  };
  CHECK(arch(R"(, "vocab_size": 50257)").sep == 50256);
  CHECK(arch(R"(, "vocab_size": 1000)").sep == -1);
  CHECK(arch(R"(, "vocab_size": 1000, "eos_token_id": 50256)").sep == -1);
  CHECK(arch(R"(, "vocab_size": 1000, "eos_token_id": 999)").sep == 999);
}
