#include "peft/combine.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "nn/model.h"
#include "peft/lora.h"
#include "peft/low_rank.h"

namespace graft {
namespace {

const std::vector<std::string> kWays = {"cat",
                                        "linear",
                                        "svd",
                                        "ties",
                                        "dare_linear",
                                        "dare_ties",
                                        "magnitude_prune",
                                        "ties_svd",
                                        "dare_linear_svd",
                                        "dare_ties_svd",
                                        "magnitude_prune_svd"};

// One adapter at one matrix: B [out, r], A [r, in], and what their product is multiplied by.
struct Term {
  const LoraValues* of;
  Matrix b, a;
  double scale, weight;
};
using Terms = std::map<Site, std::vector<Term>>;

std::string label(const Site& site, const char* which) {
  return to_string(site) + (site.part == Part::embed ? " lora_embedding_" : " lora_") + which;
}

// All sites of a spec: of linears in `where`, and the embedding's.
std::vector<Site> sites_of(Model& shapes, const Where& where, bool embed) {
  std::vector<Site> all;
  if (!where.parts.empty())
    for (const Linear* l : shapes.linears(where)) all.push_back(l->site);
  Embedding& reads = shapes.encoder ? shapes.encoder->embedding : shapes.embedding;
  if (embed) all.push_back(reads.token.parameter().site);
  return all;
}

const Array& value(const LoraValues& of, const Site& site, const char* which) {
  const auto at = of.values.find(label(site, which));
  check(at != of.values.end(), "combine: adapter '{}' ({}) has no {}", of.name, of.spec,
        label(site, which));
  return at->second;
}

void add_terms(Terms& terms, const LoraValues& of, double weight, Model& shapes) {
  for (Options& options : parse_spec(of.spec)) {
    check(options.method() == "lora",
          "combine: adapter '{}' is {}; only LoRA's matrices can be combined", of.name, of.spec);
    const LoraOptions lora(options, shapes.arch());
    options.finish();
    check(lora.saved(shapes.arch()) == 0,
          "combine: adapter '{}' ({}) trains modules of the base whole (save=, bias=), which have "
          "no A and B to combine",
          of.name, of.spec);
    for (const Site& site : sites_of(shapes, lora.where, lora.embed)) {
      const Array& a = value(of, lora.a_site(site), "A");
      terms[site].push_back({&of, Matrix(value(of, site, "B")),
                             Matrix(site.part == Part::embed ? a.transpose() : a), lora.scale(site),
                             weight});
      const Term& t = terms[site].back();
      check(t.b.columns == t.a.rows && t.b.rows == terms[site][0].b.rows &&
                t.a.columns == terms[site][0].a.columns,
            "combine: adapter '{}' at {}: B is {} x {}, A {} x {}", of.name, to_string(site),
            t.b.rows, t.b.columns, t.a.rows, t.a.columns);
    }
  }
}

// The int(density n) largest entries stay.
void trim(Matrix& m, double density) {
  const auto keep = static_cast<std::size_t>(density * static_cast<double>(m.at.size()));
  if (density >= 1) return;
  std::vector<std::size_t> order(m.at.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t i, std::size_t j) {
    return std::abs(m.at[i]) > std::abs(m.at[j]);
  });
  for (std::size_t i = keep; i < order.size(); ++i) m.at[order[i]] = 0;
}

void drop(Matrix& m, double density, std::uint32_t seed, const std::string& address) {
  if (density >= 1) return;
  const std::uint32_t stream = stream_id(address.c_str());
  for (std::size_t i = 0; i < m.at.size(); ++i)
    m.at[i] = uniform(Key{seed, 0}, stream, i) < density ? m.at[i] / density : 0;
}

int sign(double x) { return (x > 0) - (x < 0); }

// Of task vectors and weights, as `how` (without _svd) says.
Matrix merged(std::vector<Matrix> all, const std::vector<double>& weights, const CombineSpec& spec,
              const std::string& how, const std::vector<std::string>& addresses) {
  const bool trims = how == "ties" || how == "magnitude_prune", drops = how.starts_with("dare");
  for (std::size_t i = 0; i < all.size(); ++i) {
    if (trims) trim(all[i], spec.density.value_or(1));
    if (drops) drop(all[i], spec.density.value_or(1), spec.seed.value_or(0), addresses[i]);
  }
  const bool elects = how.ends_with("ties"), by_sum = spec.sign.value_or("total") == "total";
  Matrix out(all[0].rows, all[0].columns);
  for (std::size_t at = 0; at < out.at.size(); ++at) {
    double balance = 0, sum = 0;
    int agree = 0;
    for (const Matrix& m : all) balance += by_sum ? m.at[at] : sign(m.at[at]);
    const int elected = balance >= 0 ? 1 : -1;
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (elects && sign(all[i].at[at]) != elected) continue;
      sum += weights[i] * all[i].at[at];
      ++agree;
    }
    out.at[at] = elects ? sum / std::max(agree, 1) : sum;
  }
  return out;
}

struct Pair {
  Matrix b, a;
};

Pair concatenated(const std::vector<Term>& terms) {
  std::int64_t rank = 0, at = 0;
  for (const Term& t : terms) rank += t.a.rows;
  Pair p{Matrix(terms[0].b.rows, rank), Matrix(rank, terms[0].a.columns)};
  for (const Term& t : terms) {
    for (std::int64_t k = 0; k < t.a.rows; ++k, ++at) {
      for (std::int64_t j = 0; j < p.a.columns; ++j) p.a(at, j) = t.weight * t.scale * t.a(k, j);
      for (std::int64_t i = 0; i < p.b.rows; ++i) p.b(i, at) = t.b(i, k);
    }
  }
  return p;
}

std::vector<std::string> addresses(const Site& site, const std::vector<Term>& terms,
                                   const char* which) {
  std::vector<std::string> all;
  for (const Term& t : terms)
    all.push_back(fmt::format("{}/{}/dare {}", to_string(site), which, t.of->name));
  return all;
}

Pair apart(const Site& site, const std::vector<Term>& terms, const CombineSpec& spec) {
  std::vector<Matrix> as, bs;
  std::vector<double> of_a, of_b;
  for (const Term& t : terms) {
    check(t.a.rows == terms[0].a.rows,
          "combine: how={} needs equal ranks; at {} '{}' has {} and '{}' {}; take cat or svd",
          spec.how, to_string(site), terms[0].of->name, terms[0].a.rows, t.of->name, t.a.rows);
    const double by = t.weight * t.scale;
    of_a.push_back(std::copysign(std::sqrt(std::abs(by)), by));
    of_b.push_back(std::sqrt(std::abs(by)));
    as.push_back(t.a), bs.push_back(t.b);
  }
  return {merged(bs, of_b, spec, spec.how, addresses(site, terms, "B")),
          merged(as, of_a, spec, spec.how, addresses(site, terms, "A"))};
}

struct Cut {
  double lost = 0, all = 0;  // squared
  std::int64_t rank = 0;     // of all
};

Pair approximated(const Site& site, const std::vector<Term>& terms, const CombineSpec& spec,
                  std::int64_t rank, Cut& cut) {
  Svd d{Matrix(0, 0), {}, Matrix(0, 0)};
  if (spec.how == "svd") {
    const Pair whole = concatenated(terms);
    d = svd_of_product(whole.b, whole.a);
  } else {
    std::vector<Matrix> deltas;
    std::vector<double> weights;
    for (const Term& t : terms) {
      deltas.push_back(product(t.b, t.a));
      for (double& x : deltas.back().at) x *= t.scale;
      weights.push_back(t.weight);
    }
    d = svd(merged(std::move(deltas), weights, spec, spec.how.substr(0, spec.how.size() - 4),
                   addresses(site, terms, "BA")));
  }
  cut.rank = static_cast<std::int64_t>(d.s.size());
  const auto kept = std::min<std::int64_t>(rank, static_cast<std::int64_t>(d.s.size()));
  Pair p{Matrix(d.u.rows, kept), Matrix(kept, d.vt.columns)};
  for (std::size_t k = 0; k < d.s.size(); ++k) {
    const auto at = static_cast<std::int64_t>(k);
    cut.all += d.s[k] * d.s[k];
    if (at >= kept) cut.lost += d.s[k] * d.s[k];
    for (std::int64_t i = 0; at < kept && i < p.b.rows; ++i) p.b(i, at) = d.u(i, at) * d.s[k];
    for (std::int64_t j = 0; at < kept && j < p.a.columns; ++j) p.a(at, j) = d.vt(at, j);
  }
  return p;
}

void check_spec(const std::vector<LoraValues>& adapters, const CombineSpec& spec) {
  check(!adapters.empty(), "combine: no adapters");
  check(std::ranges::count(kWays, spec.how) > 0, "combine: how={}; there are {}", spec.how,
        fmt::join(kWays, ", "));
  check(spec.weights.size() == adapters.size(), "combine: {} weights for {} adapters",
        spec.weights.size(), adapters.size());
  std::set<std::string> names;
  for (std::size_t i = 0; i < adapters.size(); ++i) {
    check(names.insert(adapters[i].name).second, "combine: two adapters are called '{}'",
          adapters[i].name);
    check(std::isfinite(spec.weights[i]), "combine: a weight of {} for '{}'", spec.weights[i],
          adapters[i].name);
  }
  const bool ties = spec.how.find("ties") != std::string::npos, dare = spec.how.starts_with("dare"),
             sparse = ties || dare || spec.how.starts_with("magnitude");
  const double density = spec.density.value_or(0);
  check(sparse ? 0 < density && density <= 1 : !spec.density, "combine: density={} with how={}; {}",
        density, spec.how,
        sparse ? "need more than 0, up to 1: the part of the entries that stays"
               : "it is of ties, dare and magnitude_prune; leave it out");
  check(!spec.sign || *spec.sign == "total" || *spec.sign == "frequency",
        "combine: sign={}; there are total and frequency", spec.sign.value_or(""));
  check(!spec.sign || ties, "combine: sign={} with how={}; it is of ties; leave it out",
        spec.sign.value_or(""), spec.how);
  check(!spec.seed || dare, "combine: seed={} with how={}; it is of dare; leave it out",
        spec.seed.value_or(0), spec.how);
  if (!spec.rank) return;
  check(spec.how.ends_with("svd"), "combine: rank={} with how={}; it is of svd; leave it out",
        *spec.rank, spec.how);
  check(
      adapters.size() > 1,
      "combine: rank={} with a single adapter, whose matrices are taken as they are; leave it out",
      *spec.rank);
  check(*spec.rank >= 1,
        "combine: rank={}; need at least 1; without it it is the largest of the adapters'",
        *spec.rank);
}

void put(CombinedLora& out, const Site& site, const Matrix& b, const Matrix& a, std::int64_t rank) {
  const auto add = [&](const char* which, const Array& value) {
    auto p = std::make_shared<Parameter>();
    p->site = site;
    p->name = label(site, which).substr(to_string(site).size() + 1);
    p->value = Tensor(value);
    out.parameters.push_back(std::move(p));
  };
  Matrix wide_b(b.rows, rank), high_a(rank, a.columns);  // B = 0 beyond what there is
  for (std::int64_t i = 0; i < b.rows; ++i)
    for (std::int64_t k = 0; k < b.columns; ++k) wide_b(i, k) = b(i, k);
  std::ranges::copy(a.at, high_a.at.begin());
  add("A", site.part == Part::embed ? transposed(high_a).array() : high_a.array());
  add("B", wide_b.array());
}

// Layers from the lowest to the highest, ranks by part.
std::string spec_of(const Where& where, bool embed, const Arch& arch,
                    const std::map<Part, std::int64_t>& ranks) {
  std::vector<Part> parts = where.parts;
  if (embed) parts.push_back(Part::embed);
  std::int64_t most = 0;
  for (const auto& [part, rank] : ranks) most = std::max(most, rank);
  std::string others;
  for (const auto& [part, rank] : ranks)
    if (rank != most)
      others += fmt::format("{}{}:{}", others.empty() ? ",ranks=" : ";", name(part), rank);
  const int layers = std::max(arch.layers, arch.encoder_layers);
  const bool all = where.parts.empty() || (where.first == 0 && where.last >= layers - 1);
  return fmt::format("lora:r={},on={}{}{}", most, to_string(parts), others,
                     all ? "" : fmt::format(",layers={}-{}", where.first, where.last));
}

}  // namespace

CombinedLora combine(const std::vector<LoraValues>& adapters, const CombineSpec& given,
                     const Arch& arch) {
  check_spec(adapters, given);
  CombineSpec spec = given;
  if (adapters.size() == 1) spec.how = "linear";
  Model shapes(arch, {.storage = false});
  Terms terms;
  for (std::size_t i = 0; i < adapters.size(); ++i)
    add_terms(terms, adapters[i], spec.weights[i], shapes);

  std::int64_t largest = spec.rank.value_or(0);
  for (const auto& [site, of] : terms)
    for (const Term& t : of)
      if (!spec.rank) largest = std::max(largest, t.a.rows);
  CombinedLora out;
  out.how = spec.how;
  Cut total;
  std::map<Site, Pair> pairs;
  std::map<Part, std::int64_t> ranks;
  Where where{{}, std::numeric_limits<int>::max(), 0};
  bool embed = false;
  for (const auto& [site, of] : terms) {
    Cut cut;
    Pair pair = spec.how == "cat"           ? concatenated(of)
                : spec.how.ends_with("svd") ? approximated(site, of, spec, largest, cut)
                                            : apart(site, of, spec);
    check(pair.b.columns <= std::min(pair.b.rows, pair.a.columns),
          "combine: how={} has rank {} at {}, a {} x {} matrix; take svd with a rank", spec.how,
          pair.b.columns, to_string(site), pair.b.rows, pair.a.columns);
    if (cut.all > 0) out.worst_cut = std::max(out.worst_cut, std::sqrt(cut.lost / cut.all));
    total.lost += cut.lost, total.all += cut.all, total.rank = std::max(total.rank, cut.rank);
    ranks[site.part] = std::max(ranks[site.part], pair.b.columns);
    if (site.part == Part::embed) {
      embed = true;
    } else {
      if (!where.has(site.part)) where.parts.push_back(site.part);
      where.first = std::min(where.first, site.layer);
      where.last = std::max(where.last, site.layer);
    }
    pairs.emplace(site, std::move(pair));
  }
  check(!spec.rank || *spec.rank <= total.rank,
        "combine: rank={} with how={}; need 1..{}, which is all that {}", spec.rank.value_or(0),
        spec.how, total.rank,
        spec.how == "svd" ? "these adapters' ranks add up to" : "such a matrix has");
  if (total.all > 0) out.cut = std::sqrt(total.lost / total.all);
  std::ranges::sort(where.parts);
  for (const Site& site : sites_of(shapes, where, embed)) {
    const auto at = pairs.find(site);
    if (at != pairs.end()) {
      put(out, site, at->second.b, at->second.a, ranks.at(site.part));
      continue;
    }
    for (const Linear* l : shapes.linears({{site.part}, site.layer, site.layer}))
      if (l->site == site)
        put(out, site, Matrix(l->out_width(), 0), Matrix(0, l->in()), ranks.at(site.part));
  }
  out.spec = spec_of(where, embed, arch, ranks);
  return out;
}

}  // namespace graft
