#include "nn/text/post_processor.h"

#include <array>
#include <climits>
#include <map>
#include <optional>

#include "nn/text/json_entry.h"
#include "tensor/error.h"

namespace graft {
namespace {

using nlohmann::json;
using Parts = std::vector<PostProcessor::Part>;

constexpr std::size_t kMostIds = 1000;

PostProcessor::Part text_part(int text, int type) { return {{}, text, type}; }

int read_id(const std::string& name, const json& id, std::size_t size) {
  check(id.is_number_unsigned() && id.get<std::uint64_t>() < size, "{} is {}; need an id below {}",
        name, shown(id), size);
  return id.get<int>();
}

// ["token", id]
std::vector<int> read_pair(Entry& entry, const std::string& key, std::size_t size) {
  const json& value = entry.array(key);
  check(value.size() == 2 && value[0].is_string(), "{}: {} is {}; need [\"token\", id]",
        entry.name(), key, value.dump());
  return {read_id(entry.inside(key), value[1], size)};
}

PostProcessor read_bert(Entry& entry, std::size_t size, bool roberta) {
  const std::vector<int> sep = read_pair(entry, "sep", size), cls = read_pair(entry, "cls", size);
  if (roberta) {
    entry.flag("trim_offsets", true);  // offsets only, and so is the next
    entry.flag("add_prefix_space", true);
  }
  const int second = roberta ? 0 : 1;
  Parts single{{cls}, text_part(0, 0), {sep}}, pair = single;
  if (roberta) pair.push_back({sep});
  pair.push_back(text_part(1, second));
  pair.push_back({sep, -1, second});
  return {single, pair};
}

using SpecialIds = std::map<std::string, std::vector<int>>;

SpecialIds read_special_tokens(Entry& entry, std::size_t size) {
  SpecialIds specials;
  const json* all = entry.find("special_tokens");
  if (all == nullptr) return specials;
  check(all->is_object(), "{} is not an object", entry.inside("special_tokens"));
  for (const auto& item : all->items()) {
    Entry token(entry.inside("special_tokens") + ": " + item.key(), item.value());
    token.need("id", item.key(), nullptr);
    token.array("tokens");  // the names of the ids
    for (const json& id : token.array("ids"))
      specials[item.key()].push_back(read_id(token.inside("ids"), id, size));
    token.done();
  }
  return specials;
}

PostProcessor::Part read_part(const std::string& name, const json& value,
                              const SpecialIds& specials) {
  Entry entry(name, value);
  const bool is_text = entry.find("Sequence") != nullptr;
  Entry inner = entry.inner(is_text ? "Sequence" : "SpecialToken");
  const std::string id = inner.text("id");
  const int type = int(inner.count("type_id", INT_MAX));
  inner.done();
  entry.done();
  if (!is_text) {
    const auto known = specials.find(id);
    check(known != specials.end(), "{}: special_tokens has no '{}'", name, id);
    return {known->second, -1, type};
  }
  check(id == "A" || id == "B", "{}: id is '{}'; need A or B", inner.name(), id);
  return text_part(id == "A" ? 0 : 1, type);
}

Parts read_parts(Entry& entry, const std::string& key, const SpecialIds& specials) {
  Parts parts;
  for (const json& part : entry.array(key))
    parts.push_back(
        read_part(fmt::format("{}[{}]", entry.inside(key), parts.size()), part, specials));
  return parts;
}

// `texts`: how often the first and the second text stand there.
void check_parts(const std::string& name, const Parts& parts, std::array<std::size_t, 2> texts) {
  std::array<std::size_t, 2> found{};
  std::size_t ids = 0;
  for (const PostProcessor::Part& part : parts) {
    if (part.text >= 0) ++found[std::size_t(part.text)];
    ids += part.ids.size();
  }
  check(found == texts, "{} has text A {} times and B {} times; need {} and {}", name, found[0],
        found[1], texts[0], texts[1]);
  check(ids <= kMostIds, "{} sets {} special tokens around a text; need {} at most", name, ids,
        kMostIds);
}

PostProcessor read_template(Entry& entry, std::size_t size) {
  const SpecialIds specials = read_special_tokens(entry, size);
  const Parts single = read_parts(entry, "single", specials);
  const Parts pair = read_parts(entry, "pair", specials);
  check_parts(entry.inside("single"), single, {1, 0});
  check_parts(entry.inside("pair"), pair, {1, 1});
  return {single, pair};
}

std::optional<PostProcessor> read(const std::string& name, const json& value, std::size_t size);

std::optional<PostProcessor> read_post_processors(Entry& entry, std::size_t size) {
  std::optional<PostProcessor> made;
  std::size_t at = 0;
  for (const json& step : entry.array("processors")) {
    const std::string name = fmt::format("{}[{}]", entry.inside("processors"), at++);
    const auto next = read(name, step, size);
    check(!next || !made, "{}: this version reads one step that adds tokens, not two", name);
    if (next) made = next;
  }
  return made;
}

std::optional<PostProcessor> read(const std::string& name, const json& value, std::size_t size) {
  Entry entry(name, value);
  const std::string type = entry.type();
  std::optional<PostProcessor> made;
  if (type == "TemplateProcessing") {
    made = read_template(entry, size);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    made = read_bert(entry, size, type == "RobertaProcessing");
  } else if (type == "Sequence") {
    made = read_post_processors(entry, size);
  } else {
    check(type == "ByteLevel",
          "{}: type is \"{}\"; need TemplateProcessing, BertProcessing, RobertaProcessing, "
          "ByteLevel or Sequence",
          name, type);
    for (const char* offsets : {"add_prefix_space", "trim_offsets", "use_regex"})
      entry.flag(offsets, true);
  }
  entry.done();
  return made;
}

}  // namespace

PostProcessor::PostProcessor()
    : single_{text_part(0, 0)}, pair_{text_part(0, 0), text_part(1, 1)} {}

std::vector<int> PostProcessor::before() const {
  std::vector<int> ids;
  for (const Part& part : single_) {
    if (part.text >= 0) break;
    ids.insert(ids.end(), part.ids.begin(), part.ids.end());
  }
  return ids;
}

MarkedIds PostProcessor::fill(const std::vector<Part>& parts, const std::vector<int>& a,
                              const std::vector<int>& b) {
  MarkedIds made;
  for (const Part& part : parts) {
    const std::vector<int>& ids = part.text == 0 ? a : part.text == 1 ? b : part.ids;
    made.ids.insert(made.ids.end(), ids.begin(), ids.end());
    made.types.resize(made.ids.size(), part.type);
  }
  return made;
}

PostProcessor read_post_processor(const std::string& name, const json& value, std::size_t size) {
  return read(name, value, size).value_or(PostProcessor());
}

}  // namespace graft
