// What HyperFormer and a prefix's MLP compute, written out again by loops over their parameters.
#include <cmath>

#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

using Numbers = std::vector<double>;

Numbers numbers_of(const Parameters& all, const std::string& label_end, const Site& at) {
  for (const auto& p : all)
    if (p->site == at && p->name == label_end) return p->value.value().to_vector();
  fail("no parameter {} {}", to_string(at), label_end);
}

// W x + b, W one row after another.
Numbers affine_by_hand(const Numbers& w, const Numbers& b, const Numbers& x) {
  Numbers y = b;
  for (std::size_t i = 0; i < b.size(); ++i)
    for (std::size_t k = 0; k < x.size(); ++k) y[i] += w[i * x.size() + k] * x[k];
  return y;
}

Numbers normed_by_hand(const Numbers& x, const Numbers& gain, const Numbers& shift, double eps) {
  const double n = static_cast<double>(x.size());
  double mean = 0, spread = 0;
  for (const double v : x) mean += v / n;
  for (const double v : x) spread += (v - mean) * (v - mean) / n;
  Numbers y;
  for (std::size_t i = 0; i < x.size(); ++i)
    y.push_back(gain[i] * (x[i] - mean) / std::sqrt(spread + eps) + shift[i]);
  return y;
}

Numbers row_of(const Numbers& all, std::size_t width, std::size_t i) {
  const auto begin = all.begin() + static_cast<std::ptrdiff_t>(i * width);
  return {begin, begin + static_cast<std::ptrdiff_t>(width)};
}

// One adapter of HyperFormer++, as the generator writes it for a task, a layer and a place.
struct WrittenAdapter {
  Numbers down, down_b, up, up_b, gain, shift;

  Numbers operator()(const Numbers& y) const {
    Numbers inner = affine_by_hand(down, down_b, y);
    for (double& v : inner) v = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
    Numbers u = normed_by_hand(affine_by_hand(up, up_b, inner), gain, shift, 1e-5);
    for (std::size_t k = 0; k < u.size(); ++k) u[k] += y[k];
    return u;
  }
};

struct Generator {
  Generator(const Parameters& all, Stack stack, std::size_t t)
      : all(all), root{stack, -1, Part::embed}, set{stack, -1, Part::block}, t(t) {}

  Numbers code(std::size_t task, std::size_t layer, std::size_t place) {
    Numbers known;
    for (const auto& [name, i] :
         {std::pair{"task", task}, std::pair{"layer", layer}, std::pair{"place", place}})
      for (const double v : row_of(numbers_of(all, name, root), t, i)) known.push_back(v);
    Numbers h = affine_by_hand(at("project.in.weight"), at("project.in.bias"), known);
    for (double& v : h) {
      cut += v < 0;
      v = std::max(v, 0.0);
    }
    return normed_by_hand(affine_by_hand(at("project.out.weight"), at("project.out.bias"), h),
                          at("project.norm.weight"), at("project.norm.bias"), 1e-6);
  }

  WrittenAdapter adapter(std::size_t task, std::size_t layer, std::size_t place) {
    const Numbers i = code(task, layer, place);
    const auto write = [&](const std::string& what) {
      return affine_by_hand(numbers_of(all, what + ".weight", set),
                            numbers_of(all, what + ".bias", set), i);
    };
    return {write("down"),    write("down_bias"), write("up"),
            write("up_bias"), write("gain"),      write("shift")};
  }

  Numbers at(const char* name) const { return numbers_of(all, name, root); }

  const Parameters& all;
  Site root, set;
  std::size_t t;
  int cut = 0;  // how often the ReLU had something to cut off
};

}  // namespace

TEST_CASE("HyperFormer++ writes the adapters that its equations say, layer by layer and place") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch, Dtype::f64);
  const Batch batch = ragged(arch, {5, 1, 8});
  const auto rows = [&] {
    Ctx ctx{.task = 1};
    return model.forward(batch, ctx).rows.value();
  };
  const Array bare = rows();
  Array with;
  Parameters parameters;
  {
    const Adaptation adaptation(
        all_methods(), "hyperformer++:tasks=2,t=3,hidden=6,i=4,m=2,std=0.3,norms=no", model);
    jitter(adaptation.parameters());
    parameters = adaptation.parameters();
    with = rows();
  }
  CHECK(difference(with, bare) > 1e-3);
  Generator generator(parameters, Stack::encoder, 3);
  std::vector<Handle> handles;
  for (std::size_t layer = 0; layer < model.blocks.size(); ++layer)
    for (std::size_t place = 0; place < 2; ++place) {
      auto& slot = place == 0 ? model.blocks[layer]->attention.out : model.blocks[layer]->mlp.out;
      handles.push_back(slot.add("by hand", [a = generator.adapter(1, layer, place)](
                                                const Tensor& y, const Sub&, const Ctx&) {
        const Numbers all = y.value().to_vector();
        const auto width = static_cast<std::size_t>(y.dim(1));
        Numbers out;
        for (std::size_t i = 0; i < all.size() / width; ++i)
          for (const double v : a(row_of(all, width, i))) out.push_back(v);
        return Tensor(Array::of(out, y.shape()));
      }));
    }
  CHECK(generator.cut > 0);
  CHECK(difference(rows(), with) < 1e-11);
}

TEST_CASE("a prefix's MLP gives each attention W2 tanh(W1 P' + b1) + b2") {
  for (const Arch& arch : {small_arch(Stack::encoder), llama_like(), contract_arch(Body::both)}) {
    CAPTURE(arch.family);
    SmallModel model(arch, Dtype::f64);
    const Adaptation prefix(all_methods(), "prefix:length=3,mlp=yes,mid=4", model);
    jitter(prefix.parameters());
    const Parameters all = prefix.parameters();
    std::map<Site, Bank> banks;
    std::vector<Handle> handles;
    for (Block* block : model.all_blocks()) {
      const auto [stack, layer, part] = block->norm1.site;
      const auto watch = [&](const Site& site, Attention& attention) {
        handles.push_back(attention.banks.add("watch", [&banks, site](Attn a, const Ctx&) {
          REQUIRE(a.banks.size() == 1);
          banks[site] = a.banks[0];
          return a;
        }));
      };
      watch({stack, layer, Part::attn}, block->attention);
      if (block->cross) watch({stack, layer, Part::cross}, *block->cross);
    }
    Batch batch = ragged(arch, {5, 2});
    if (arch.crosses()) batch.source = std::make_shared<Batch>(ragged(arch, {3, 4}, 9));
    rows_of(model, batch);
    CHECK(banks.size() == handles.size());
    for (const auto& entry : banks) {
      const Site site = entry.first, shared{site.stack, -1, site.part};
      CAPTURE(to_string(site));
      Numbers k, v;
      const Numbers rows = numbers_of(all, "prefix.embed", shared);
      for (std::size_t i = 0; i < 3; ++i) {
        Numbers h = affine_by_hand(numbers_of(all, "prefix.in.weight", shared),
                                   numbers_of(all, "prefix.in.bias", shared),
                                   row_of(rows, static_cast<std::size_t>(arch.width), i));
        for (double& x : h) x = std::tanh(x);
        for (const auto& [name, into] : {std::pair{"prefix.k", &k}, std::pair{"prefix.v", &v}})
          for (const double x :
               affine_by_hand(numbers_of(all, std::string(name) + ".weight", site),
                              numbers_of(all, std::string(name) + ".bias", site), h))
            into->push_back(x);
      }
      CHECK(difference(entry.second.k.value(), Array::of(k, entry.second.k.shape())) < 1e-12);
      CHECK(difference(entry.second.v.value(), Array::of(v, entry.second.v.shape())) < 1e-12);
    }
  }
}
