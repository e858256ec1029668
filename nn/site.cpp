#include "nn/site.h"

#include <algorithm>
#include <charconv>

#include "tensor/error.h"

namespace graft {
namespace {

constexpr const char* kPartNames[] = {
    "embed",    "position", "norm_embed", "norm1",   "q",       "k",          "v",
    "o",        "attn",     "norm_x",     "xq",      "xk",      "xv",         "xo",
    "cross",    "norm2",    "gate",       "up",      "down",    "mlp",        "block",
    "norm_out", "pooler",   "lm_dense",   "lm_norm", "lm_head", "head_dense", "head"};

int number(std::string_view text, std::string_view whole) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  check(error == std::errc() && end == text.data() + text.size() && value >= 0,
        "layers: '{}' is not a range; write all, 7, 4-11 or top3", whole);
  return value;
}

}  // namespace

const char* name(Part part) { return kPartNames[static_cast<int>(part)]; }
const char* name(Stack stack) { return stack == Stack::encoder ? "encoder" : "decoder"; }

std::string to_string(const Site& site) {
  if (site.layer < 0) return fmt::format("{} {}", name(site.stack), name(site.part));
  return fmt::format("{} {} {}", name(site.stack), site.layer, name(site.part));
}

Part part_named(std::string_view text) {
  for (int i = 0; i < static_cast<int>(std::size(kPartNames)); ++i)
    if (text == kPartNames[i]) return static_cast<Part>(i);
  fail("site: no part is called '{}'; the parts are {}", text, fmt::join(kPartNames, " "));
}

bool Where::has(Part part) const {
  return std::find(parts.begin(), parts.end(), part) != parts.end();
}
bool Where::has(const Site& site, int layers) const {
  return has(site.part) && site.layer >= first && site.layer <= (last < 0 ? layers - 1 : last);
}

int Where::count(int layers) const {
  const int end = last < 0 ? layers : std::min(last + 1, layers);
  return std::max(end - first, 0);
}

std::string to_string(const std::vector<Part>& parts) {
  std::string text;
  for (Part part : parts) text += (text.empty() ? "" : "+") + std::string(name(part));
  return text;
}

std::vector<Part> parts_named(std::string_view text) {
  std::vector<Part> parts;
  while (true) {
    const std::size_t plus = text.find('+');
    const Part part = part_named(text.substr(0, plus));
    check(std::find(parts.begin(), parts.end(), part) == parts.end(), "site: '{}' is named twice",
          name(part));
    parts.push_back(part);
    if (plus == std::string_view::npos) return parts;
    text.remove_prefix(plus + 1);
  }
}

void parse_layers(std::string_view text, int layers, Where& where) {
  if (text == "all") {
    where.first = 0, where.last = layers - 1;
  } else if (text.starts_with("top")) {
    const int n = number(text.substr(3), text);
    check(1 <= n && n <= layers, "layers={}: the model has {} layers; need top1..top{}", text,
          layers, layers);
    where.first = layers - n, where.last = layers - 1;
  } else {
    const std::size_t dash = text.find('-');
    where.first = number(text.substr(0, dash), text);
    where.last = dash == std::string_view::npos ? where.first : number(text.substr(dash + 1), text);
    check(where.first <= where.last, "layers={}: the range is reversed; write {}-{}", text,
          where.last, where.first);
    check(where.last < layers, "layers={}: the model has layers 0..{}", text, layers - 1);
  }
}

}  // namespace graft
