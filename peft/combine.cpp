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

const std::vector<std::string> kWays = [] {
  std::vector<std::string> all{"cat", "linear", "svd"};
  for (const std::string sparse : {"ties", "dare_linear", "dare_ties", "magnitude_prune"})
    all.insert(all.end(), {sparse, sparse + "_svd"});
  return all;
}();

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

// What is combined as one: a matrix; or those of one self-attention that read one A, which stand at
// the first of them, their Bs below each other as PEFT's one module has them.
struct Joint {
  struct Piece {
    Site site;
    std::int64_t rows;  // of B
  };
  Site site;
  std::int64_t in;
  std::vector<Piece> pieces;
  std::int64_t rows() const {
    std::int64_t sum = 0;
    for (const Piece& p : pieces) sum += p.rows;
    return sum;
  }
};

// All of a spec: of linears in `where`, and the embedding. `shared`: parts that read one A.
std::vector<Joint> joints_of(Model& shapes, const Where& where, bool embed,
                             const std::vector<Part>& shared) {
  std::vector<Joint> all;
  for (const Linear* l : where.parts.empty() ? std::vector<Linear*>() : shapes.linears(where)) {
    Site at = l->site;
    if (std::ranges::count(shared, at.part) > 0) at.part = shared.front();
    const auto known = std::ranges::find(all, at, &Joint::site);
    Joint& joint = known != all.end() ? *known : all.emplace_back(Joint{at, l->in(), {}});
    joint.pieces.push_back({l->site, l->out_width()});
  }
  for (Joint& joint : all) std::ranges::sort(joint.pieces, {}, &Joint::Piece::site);
  if (!embed) return all;
  Embedding& reads = shapes.encoder ? shapes.encoder->embedding : shapes.embedding;
  const Site site = reads.token.parameter().site;
  all.push_back({site, shapes.arch().vocab, {{site, shapes.arch().width}}});
  return all;
}

// The parts of q, k and v that read one A in every adapter that has any of them. None where the
// adapters differ in it: each matrix is then combined by itself.
std::vector<Part> shared_parts(const std::vector<LoraValues>& adapters, const Arch& arch) {
  std::set<std::vector<Part>> all;
  for (const LoraValues& of : adapters)
    for (Options& options : parse_spec(of.spec)) {
      if (options.method() != "lora") continue;  // refused below
      const LoraOptions lora(options, arch);
      std::vector<Part> parts;
      for (const Part part : {Part::q, Part::k, Part::v})
        if (lora.where.has(part)) parts.push_back(part);
      if (!parts.empty() && !lora.shared) return {};
      if (!parts.empty()) all.insert(parts);
    }
  return all.size() == 1 ? *all.begin() : std::vector<Part>();
}

const Array& value(const LoraValues& of, const Site& site, const char* which) {
  const auto at = of.values.find(label(site, which));
  check(at != of.values.end(), "combine: adapter '{}' ({}) has no {}", of.name, of.spec,
        label(site, which));
  return at->second;
}

// The Bs of its pieces, one below the other.
Matrix stacked(const LoraValues& of, const Joint& joint, std::int64_t rank) {
  Matrix all(joint.rows(), rank);
  std::int64_t row = 0;
  for (const auto& [site, rows] : joint.pieces) {
    const Matrix b(value(of, site, "B"));
    check(b.rows == rows && b.columns == rank,
          "combine: adapter '{}' at {}: B is {} x {}; need {} x {}, as its A has it", of.name,
          to_string(site), b.rows, b.columns, rows, rank);
    std::ranges::copy(b.at, all.at.begin() + row * rank);
    row += rows;
  }
  return all;
}

void add_terms(Terms& terms, const LoraValues& of, double weight, Model& shapes,
               const std::vector<Part>& shared) {
  for (Options& options : parse_spec(of.spec)) {
    check(options.method() == "lora",
          "combine: adapter '{}' is {}; only LoRA's matrices can be combined", of.name, of.spec);
    const LoraOptions lora(options, shapes.arch());
    options.finish();
    check(lora.saved(shapes.arch()) == 0,
          "combine: adapter '{}' ({}) trains modules of the base whole (save=, bias=), which have "
          "no A and B to combine",
          of.name, of.spec);
    for (const Joint& joint : joints_of(shapes, lora.where, lora.embed, shared)) {
      const Site& site = joint.site;
      const Array& stored = value(of, lora.a_site(site), "A");
      Matrix a(site.part == Part::embed ? stored.transpose() : stored);
      check(a.columns == joint.in, "combine: adapter '{}' at {}: A has {} columns; need {}",
            of.name, to_string(site), a.columns, joint.in);
      Matrix b = stacked(of, joint, a.rows);
      terms[site].push_back({&of, std::move(b), std::move(a), lora.scale(site), weight});
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

// Beyond what there is B = 0, and A is what LoRA starts with: the function is the same, and it can
// train on. Where both were 0 neither would ever get a gradient.
void put(CombinedLora& out, const Joint& j, const Matrix& b, const Matrix& a, std::int64_t rank) {
  const auto add = [&](const Site& site, const char* which, const Array& value) {
    auto p = std::make_shared<Parameter>();
    p->site = site;
    p->name = label(site, which).substr(to_string(site).size() + 1);
    p->value = Tensor(value);
    out.parameters.push_back(std::move(p));
  };
  const Init start{Init::Kind::normal, 1 / std::sqrt(3.0 * static_cast<double>(j.in))};
  Matrix high_a =
      a.rows == rank ? a : Matrix(initial(Build{}, start, {rank, j.in}, j.site, "lora/lora_A"));
  std::ranges::copy(a.at, high_a.at.begin());
  add(j.site, "A", j.site.part == Part::embed ? transposed(high_a).array() : high_a.array());
  std::int64_t row = 0;
  for (const auto& [site, rows] : j.pieces) {
    Matrix wide_b(rows, rank);
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t k = 0; k < b.columns; ++k) wide_b(i, k) = b(row + i, k);
    add(site, "B", wide_b.array());
    row += rows;
  }
}

// Layers from the lowest to the highest, ranks by part.
std::string spec_of(const Where& where, bool embed, const Arch& arch,
                    const std::map<Part, std::int64_t>& ranks, bool share) {
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
  return fmt::format("lora:r={},on={}{}{}{}", most, to_string(parts), others,
                     share ? ",share=qkv" : "",
                     all ? "" : fmt::format(",layers={}-{}", where.first, where.last));
}

}  // namespace

CombinedLora combine(const std::vector<LoraValues>& adapters, const CombineSpec& given,
                     const Arch& arch) {
  check_spec(adapters, given);
  CombineSpec spec = given;
  if (adapters.size() == 1) spec.how = "linear";
  Model shapes(arch, {.storage = false});
  const std::vector<Part> shared = shared_parts(adapters, arch);
  Terms terms;
  for (std::size_t i = 0; i < adapters.size(); ++i)
    add_terms(terms, adapters[i], spec.weights[i], shapes, shared);

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
    const bool fused = std::ranges::count(shared, site.part) > 0;
    for (const Part part : fused ? shared : std::vector<Part>{site.part}) {
      ranks[part] = std::max(ranks[part], pair.b.columns);
      if (part != Part::embed && !where.has(part)) where.parts.push_back(part);
    }
    if (site.part == Part::embed) {
      embed = true;
    } else {
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
  const Pair none{Matrix(0, 0), Matrix(0, 0)};
  for (const Joint& joint : joints_of(shapes, where, embed, shared)) {
    const auto at = pairs.find(joint.site);
    const Pair& pair = at == pairs.end() ? none : at->second;
    put(out, joint, pair.b, pair.a, ranks.at(joint.site.part));
  }
  out.spec = spec_of(where, embed, arch, ranks, !shared.empty());
  return out;
}

}  // namespace graft
