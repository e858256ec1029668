#include "nn/text/sentinels.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::ordered_json;

ordered_json ended_by(const std::string& end, int id) {
  const ordered_json mark = {{"SpecialToken", {{"id", end}, {"type_id", 0}}}};
  const auto text = [](const char* which) -> ordered_json {
    return {{"Sequence", {{"id", which}, {"type_id", 0}}}};
  };
  ordered_json made{{"type", "TemplateProcessing"}};
  made["single"] = ordered_json::array({text("A"), mark});
  made["pair"] = ordered_json::array({text("A"), mark, text("B"), mark});
  made["special_tokens"][end] = {
      {"id", end}, {"ids", ordered_json::array({id})}, {"tokens", ordered_json::array({end})}};
  return made;
}

}  // namespace

std::string sentinel(int which) { return fmt::format("<extra_id_{}>", which); }

std::string add_sentinels(const std::string& name, std::string_view tokenizer_json, int size,
                          int end, int count) {
  check(count > 0, "{}: {} sentinels to add; need at least 1", name, count);
  ordered_json root = ordered_json::parse(tokenizer_json);
  std::string end_token;
  for (const auto& token : root["added_tokens"]) {
    if (token["id"] == end) end_token = token["content"];
    check(token["content"] != sentinel(0), "{}: it has sentinels already", name);
  }
  check(!end_token.empty(), "{}: no special token has id {}; need one that ends texts", name, end);
  for (int i = 0; i < count; ++i)
    root["added_tokens"].push_back({{"id", size + i},
                                    {"content", sentinel(count - 1 - i)},
                                    {"single_word", false},
                                    {"lstrip", false},
                                    {"rstrip", false},
                                    {"normalized", false},
                                    {"special", true}});
  root["post_processor"] = ended_by(end_token, end);
  return root.dump(2) + "\n";
}

}  // namespace graft
