// Compacter: the matrices behind its factors, options, refusals.
#include "tests/peft/method_cases.h"

using namespace graft;
using namespace graft::testing;

namespace {

// sum_i A_i (x) (s_i t_i^T), [out, in], as it is written. A is kept as [p, i, q].
Array kronecker(const Array& a, const Array& s, const Array& t) {
  const std::int64_t n = a.dim(0), u = s.dim(1), v = t.dim(1);
  Array w = Array::zeros({n * u, n * v}, Dtype::f64);
  double* at = w.data<double>();
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t p = 0; p < n; ++p)
      for (std::int64_t q = 0; q < n; ++q)
        for (std::int64_t x = 0; x < u; ++x)
          for (std::int64_t y = 0; y < v; ++y)
            at[(p * u + x) * n * v + q * v + y] +=
                a.at((p * n + i) * n + q) * s.at(i * u + x) * t.at(i * v + y);
  return w;
}

}  // namespace

TEST_CASE("Compacter keeps the contract in its parts, sizes and functions") {
  for (const char* spec :
       {"compacter:n=1,m=2,norms=no", "compacter:n=4,m=8,on=mlp",
        "compacter:n=3,m=3,f=relu,layers=1", "compacter:n=2,m=2,on=attn,norms=no|lora:r=2"})
    keeps_contract(spec);
  keeps_contract_on("compacter:n=2,m=4,on=cross+mlp", Body::both);
}

TEST_CASE("Compacter is an adapter of matrices that are sums of Kronecker products") {
  const Arch arch = small_arch(Stack::encoder);
  SmallModel model(arch, Dtype::f64);
  const Batch batch = ragged(arch, {5, 1, 8});
  const Array bare = rows_of(model, batch).value();
  Array with;
  std::map<std::string, Array> value;
  {
    const Adaptation adaptation(all_methods(), "compacter:n=4,m=8,on=mlp,layers=1,norms=no", model);
    jitter(adaptation.parameters());
    for (const auto& p : adaptation.parameters()) value[p->name] = p->value.value();
    with = rows_of(model, batch).value();
  }
  CHECK(difference(with, bare) > 1e-3);
  const Array a = value.at("compacter_A");
  const Tensor down(kronecker(a, value.at("down.s"), value.at("down.t")));
  const Tensor up(kronecker(a, value.at("up.s"), value.at("up.t")));
  CHECK(down.shape() == Shape{8, arch.width});
  CHECK(up.shape() == Shape{arch.width, 8});
  const Handle plain =
      model.blocks[1]->mlp.out.add("adapter", [&](const Tensor& y, const Sub&, const Ctx&) {
        const Tensor h = gelu_tanh(linear(y, down, Tensor(value.at("down.bias"))));
        return y + linear(h, up, Tensor(value.at("up.bias")));
      });
  CHECK(difference(rows_of(model, batch).value(), with) < 1e-12);
}

TEST_CASE("what Compacter cannot be is one clear error") {
  contains(refusal("compacter:n=5,m=5"), "need n to divide both");
  contains(refusal("compacter:n=4,m=6"), "n=4, m=6 in a model of width 24; need n to divide both");
  contains(refusal("compacter:n=2,m=26"), "m <= 24");
  contains(refusal("compacter:on=q"), "on=q; need attn, mlp or several");
  contains(refusal("compacter:on=cross"), "need attn, mlp or several");
  contains(refusal("compacter:layers=2"), "layers 0..1");
  contains(refusal("compacter:rank=2"), "unknown option 'rank'");
}
