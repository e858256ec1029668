// The options of a spec of LoRA, and what follows of them from the shapes alone.
#include <charconv>
#include <cmath>

#include "peft/lora.h"
#include "peft/part_shapes.h"

namespace graft {
namespace {

constexpr Part kSharing[] = {Part::q, Part::k, Part::v};  // what share=qkv is about

// The numbers of the base's modules at a part, in a whole model.
std::int64_t numbers_of(const Arch& arch, Part part) {
  const std::int64_t d = arch.width, table = std::int64_t{arch.vocab} * d;
  switch (part) {
    case Part::lm_dense:
      return arch.lm_transform * (d * d + d);
    case Part::lm_norm:
      return arch.lm_transform * norm_size(arch);
    case Part::lm_head:
      return arch.lm_bias * std::int64_t{arch.vocab} + (arch.lm && !arch.tied) * table;
    default:
      break;
  }
  std::int64_t n = part == Part::embed ? table : 0;
  for (const Arch& a : arch.stacks()) {
    const Where all{{}, 0, a.layers - 1};
    if (part == Part::embed) n += a.token_types * d;
    if (part == Part::position) n += a.learned_positions * (a.positions + a.position_offset) * d;
    if (is_norm(part)) n += norms_of(all, a, part) * norm_size(a);
    if (!is_linear(part)) continue;
    const PartShape s = shape_of(a, part);
    n += count_of(all, a, part) * (s.in * s.out + a.biased(part) * s.out);
    if (part == Part::q || part == Part::k) n += a.head_norms * a.layers * a.head_width();
  }
  return n;
}

// Its biases, in a range of layers.
std::int64_t biases_of(const Where& where, const Arch& arch, Part part) {
  std::int64_t n = 0;
  for (const Arch& a : arch.stacks()) {
    if (is_norm(part)) n += a.rms ? 0 : norms_of(where, a, part) * a.width;
    if (is_linear(part) && a.biased(part)) n += count_of(where, a, part) * shape_of(a, part).out;
  }
  return n;
}

}  // namespace

LoraOptions::LoraOptions(Options& o, const Arch& arch)
    : where(o.layers(arch)),
      dropout_rate(o.real("dropout", 0)),
      kaiming(o.choice("init", "gaussian", {"gaussian", "kaiming"}) == "kaiming"),
      rank_stabilised(o.choice("scale", "plain", {"plain", "rs"}) == "rs"),
      shared(o.choice("share", "none", {"none", "qkv"}) == "qkv"),
      r_(o.integer("r", 8)),
      layers_(std::max(arch.layers, arch.encoder_layers)) {
  check(0 <= dropout_rate && dropout_rate < 1, "lora: dropout={}; need 0 <= dropout < 1",
        dropout_rate);
  const double alpha = o.real("alpha", r_);
  if (o.has("alpha")) alpha_ = alpha;
  where = o.text("on", "q+v") == "all" ? where : o.where("q+v", arch);
  if (where.parts.empty()) where.parts = linear_parts(arch);
  embed = std::erase(where.parts, Part::embed) > 0;
  const std::string biased = o.choice("bias", "none", {"none", "all", "lora_only"});
  biases = biased == "none" ? Biases::none : biased == "all" ? Biases::all : Biases::lora_only;
  save = parts_to_save(o, arch);
  ranks_ = entries(o, "ranks"), alphas_ = entries(o, "alphas");
  for (const Entry& e : ranks_)
    check(e.number >= 1 && e.number == std::floor(e.number),
          "lora: ranks={}; need whole numbers of at least 1", o.text("ranks", ""));
  if (shared) check_shared();
  std::int64_t of_base = 0;
  for (Part part : biases == Biases::all ? std::vector<Part>() : where.parts)
    of_base += biases_of(where, arch, part);
  check(biases == Biases::none || (biases == Biases::all ? arch.biases || !arch.rms : of_base > 0),
        "lora: bias={}; there are none in this model", biased);
}

std::vector<LoraOptions::Entry> LoraOptions::entries(Options& o, const char* key) const {
  std::vector<Entry> all;
  const std::string whole = o.text(key, "");
  for (std::size_t begin = 0; !whole.empty() && begin <= whole.size();) {
    const std::string one = whole.substr(begin, whole.find(';', begin) - begin);
    begin += one.size() + 1;
    const std::size_t colon = one.find(':'), dot = std::min(one.find('.'), colon);
    Entry e;
    const char* end = one.data() + one.size();
    const auto [at, error] = colon == std::string::npos
                                 ? std::from_chars_result{end, std::errc::invalid_argument}
                                 : std::from_chars(one.data() + colon + 1, end, e.number);
    check(error == std::errc() && at == end && std::isfinite(e.number),
          "lora: {}={}: '{}' is not part:number or part.layers:number, as in q+k:4;v.0-3:8", key,
          whole, one);
    try {
      e.where.parts = parts_named(one.substr(0, dot));
      parse_layers(dot < colon ? one.substr(dot + 1, colon - dot - 1) : "all", layers_, e.where);
    } catch (const Error& wrong) {
      fail("lora: {}={}: {}", key, whole, wrong.what());
    }
    for (Part part : e.where.parts)
      check(part == Part::embed
                ? embed && dot == colon
                : where.has(part) && e.where.first <= where.last && e.where.last >= where.first,
            "lora: {}={}: nothing that is adapted matches '{}'; on={} in layers {}..{}", key, whole,
            one, o.text("on", "q+v"), where.first, where.last);
    all.push_back(std::move(e));
  }
  return all;
}

std::vector<Part> LoraOptions::parts_to_save(Options& o, const Arch& arch) const {
  const std::string text = o.text("save", "");
  if (text.empty()) return {};
  std::vector<Part> parts;
  try {
    parts = parts_named(text);
  } catch (const Error& e) {
    fail("lora: save={}: {}", text, e.what());
  }
  for (Part part : parts) {
    check(numbers_of(arch, part) > 0, "lora: save={}: this model has no {} to train", text,
          name(part));
    check(!where.has(part) && !(embed && part == Part::embed),
          "lora: save={}: {} is adapted by on=; a module is either adapted or trained whole", text,
          name(part));
  }
  return parts;
}

// One A has one rank, and PEFT's one module one alpha.
void LoraOptions::check_shared() const {
  std::vector<Part> parts;
  for (Part part : kSharing)
    if (where.has(part)) parts.push_back(part);
  check(parts.size() >= 2,
        "lora: share=qkv: of q, k and v {} is adapted; need at least two in on=, which read one A",
        parts.empty() ? "none" : "only " + std::string(name(parts[0])));
  for (int layer = where.first; layer <= std::min(where.last, layers_ - 1); ++layer)
    for (Part part : parts) {
      const Site one{Stack::decoder, layer, parts[0]}, other{Stack::decoder, layer, part};
      check(rank(one) == rank(other) && alpha(one) == alpha(other),
            "lora: share=qkv: in layer {} {} has r={}, alpha={} and {} r={}, alpha={}; what reads "
            "one A needs the same in ranks= and alphas=",
            layer, name(parts[0]), rank(one), alpha(one), name(part), rank(other), alpha(other));
    }
}

Site LoraOptions::a_site(const Site& site) const {
  if (shared && std::ranges::count(kSharing, site.part) > 0)
    for (Part part : kSharing)
      if (where.has(part)) return {site.stack, site.layer, part};
  return site;
}

int LoraOptions::rank(const Site& site) const {
  int r = r_;
  for (const Entry& e : ranks_)
    if (site.part == Part::embed ? e.where.has(site.part) : e.where.has(site, layers_))
      r = static_cast<int>(e.number);
  return r;
}

double LoraOptions::alpha(const Site& site) const {
  double alpha = alpha_.value_or(rank(site));
  for (const Entry& e : alphas_)
    if (site.part == Part::embed ? e.where.has(site.part) : e.where.has(site, layers_))
      alpha = e.number;
  return alpha;
}

double LoraOptions::scale(const Site& site) const {
  const double r = rank(site);
  return alpha(site) / (rank_stabilised ? std::sqrt(r) : r);
}

std::int64_t LoraOptions::saved(const Arch& arch) const {
  std::int64_t n = 0;
  for (Part part : save) n += numbers_of(arch, part);
  const auto is_saved = [&](Part part) { return std::ranges::count(save, part) > 0; };
  std::vector<Part> biased = where.parts;
  Where range = where;
  if (biases == Biases::all) {
    biased = linear_parts(arch), range = {{}, 0, layers_ - 1};
    std::ranges::copy(norm_parts(arch), std::back_inserter(biased));
  }
  for (Part part : biases == Biases::none ? std::vector<Part>() : biased)
    if (!is_saved(part)) n += biases_of(range, arch, part);
  return n;
}

}  // namespace graft
