// A training step against this machine's own matrix product: how much of the speed that OpenBLAS
// reaches on a large product a whole step reaches, with LoRA and with full fine-tuning, counting
// useful work only; what LoRA adds to the frozen model's own forward and backward pass; what the
// promise of the same bits costs; and what a step keeps in memory.
//
// Useful FLOP of a step, per token and block, with P numbers in the block's matrices and s tokens
// in the sequence: LoRA 4P + 12sd (forward and the gradient of the input; 6r(a+b) for each LoRA
// matrix besides), full 6P + 12sd. A vocabulary head is frozen: 4dV. Padding, and what is computed
// twice, do not count. Everything alternates in one process; medians are printed.
#include <cblas.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include "experiments/ablations/lab.h"
#include "experiments/cli/main.h"
#include "nn/models/folder.h"
#include "nn/models/presets.h"

extern "C" char* openblas_get_corename();

namespace graft {
namespace {

constexpr int kRank = 8;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> x) {
  std::nth_element(x.begin(), x.begin() + x.size() / 2, x.end());
  return x[x.size() / 2];
}

double sgemm_seconds() {
  constexpr int n = 4096;
  static std::vector<float> a(std::size_t(n) * n, 0.5f), b(a), c(a);
  const double t = now();
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, n, n, 1, a.data(), n, b.data(), n, 0,
              c.data(), n);
  return now() - t;
}

// What is trained: a model's shape or folder, and the lengths of a batch's sequences.
struct Workload {
  std::string model;
  std::vector<int> length;

  std::unique_ptr<Model> load() const {
    auto m = model == "encoder" ? load_model(cli::base_folder(model))
                                : std::make_unique<Model>(arch_named(model), Build{.seed = 1});
    if (!m->arch().causal)
      m->set_head(std::make_unique<LinearHead>(m->build(), m->arch(), 26, Pool::mean));
    return m;
  }
};

// Lengths in the middle of each eighth of the supersense task's sentences, and so many of these.
std::vector<int> sentences(int eights) {
  std::vector<int> all;
  for (int i = 0; i < eights; ++i)
    for (const int length : {7, 10, 12, 15, 18, 22, 27, 37}) all.push_back(length);
  return all;
}

Workload workload_named(const std::string& name) {
  static const std::map<std::string, Workload> all{
      {"gpt2", {"gpt2", {256, 256, 256, 256}}},
      {"bert", {"bert-base", sentences(4)}},
      {"encoder", {"encoder", sentences(1)}},
      {"encoder32", {"encoder", sentences(4)}},
  };
  std::vector<std::string> names;
  for (const auto& [known, w] : all) names.push_back(known);
  check(all.contains(name), "workload '{}': there are {}", name, fmt::join(names, ", "));
  return all.at(name);
}

Batch batch_of(const Arch& arch, const std::vector<int>& lengths) {
  Batch b;
  b.length = lengths;
  for (int s = 0; s < b.sequences(); ++s) {
    b.example.push_back(s);
    b.label.push_back(s % 26);
    for (int i = 0; i < lengths[s]; ++i) {
      b.token.push_back((s * 131 + i * 17) % arch.vocab);
      b.token_label.push_back(i + 1 < lengths[s] ? (s * 131 + i * 17 + 17) % arch.vocab : -1);
    }
  }
  return b;
}

// A model that trains by a method; without one, the bare model, of which the gradient is wanted
// at the first block's input alone.
struct Side {
  Side(const Workload& w, const std::string& spec) : model(w.load()) {
    if (!spec.empty()) {
      adaptation.emplace(all_methods(), spec, *model);
      Parameters all = adaptation->parameters();
      const Parameters head = train_head(*model);
      all.insert(all.end(), head.begin(), head.end());
      optimizer.emplace(all, OptimSpec{});
    }
    batch = batch_of(model->arch(), w.length);
  }

  void step() {
    const double t = now();
    Ctx ctx{.train = true};
    Sequence s = model->embed(batch, ctx);
    if (!optimizer) s.rows = Tensor::leaf(s.rows.value());
    s = model->finish(model->run_blocks(std::move(s), ctx, 0, model->arch().layers), ctx);
    const Tensor l = model->has_head()
                         ? model->head().loss(model->head().scores(*model, s, batch, ctx), batch)
                         : model->lm_loss(s, batch, ctx);
    Gradients grads = backward(l);
    if (optimizer) norm = optimizer->step(grads, 1e-4);
    loss = l.item();
    seconds.push_back(now() - t);
  }
  std::size_t kept_bytes() {
    std::vector<Array> own;
    model->each([&](Weight& w) { own.push_back(w.value().value()); });
    for (const auto& p : adaptation->parameters()) own.push_back(p->value.value());
    Ctx ctx;
    const Sequence s = model->run_blocks(model->embed(batch, ctx), ctx, 0, model->arch().layers);
    return explain(s.rows, own).kept_bytes;
  }

  std::unique_ptr<Model> model;
  std::optional<Adaptation> adaptation;
  std::optional<Optimizer> optimizer;
  Batch batch;
  double loss = 0, norm = 0;
  std::vector<double> seconds;
};

// The products of the LoRA step, with our kernel and with the BLAS as it is: y = x W^T and dx = dy
// W of every frozen matrix, the vocabulary's besides, and LoRA's thin ones. As in a step, no two
// matrices are one, and each is multiplied with in the form that it is stored in; the BLAS has f32.
class Products {
 public:
  explicit Products(Model& m, std::int64_t tokens, std::int64_t labelled) {
    const Arch& arch = m.arch();
    const std::int64_t d = arch.width;
    for (auto& block : m.blocks)
      block->each([&](Weight& w) {
        if (w.value().shape().size() == 2) add(w.value().value(), tokens, 1, 1);
      });
    if (!m.has_head()) add(m.embedding.table().value(), labelled, 2, 1);
    for (int i = 0; i < 2 * arch.layers; ++i) {
      add(Array::full({kRank, d}, 0.5), tokens, 1, 1);
      add(Array::full({d, kRank}, 0.5), tokens, 1, 1);
    }
    for (int i = 0; i < 4 * arch.layers; ++i) sums_.push_back({kRank, d, tokens});
    const auto widest = std::max_element(
        all_.begin(), all_.end(), [](const One& a, const One& b) { return a.size() < b.size(); });
    x_ = Array::full({widest->size()}, 0.5), y_ = Array::full({widest->size()}, 0.5);
  }

  void time_ours() {
    const double t = now();
    for (const One& p : all_) {
      for (int i = 0; i < p.forward; ++i) ours(p.rows, p.stored.transpose());
      for (int i = 0; i < p.backward; ++i) ours(p.rows, p.stored);
    }
    for (const Sum& s : sums_) {
      Array c = part(y_, s.out, s.in);
      kernels::gemm(c, part(x_, s.tokens, s.out).transpose(), part(x_, s.tokens, s.in), 1, 1);
    }
    ours_.push_back(now() - t);
  }
  void time_blas() {
    const double t = now();
    for (const One& p : all_) {
      const std::int64_t out = p.wide.dim(0), in = p.wide.dim(1);
      for (int i = 0; i < p.forward; ++i)
        blas(CblasNoTrans, CblasTrans, p.rows, out, in, x_, in, p.wide, in, 0);
      for (int i = 0; i < p.backward; ++i)
        blas(CblasNoTrans, CblasNoTrans, p.rows, in, out, x_, out, p.wide, in, 0);
    }
    for (const Sum& s : sums_)
      blas(CblasTrans, CblasNoTrans, s.out, s.in, s.tokens, x_, s.out, x_, s.in, 1);
    blas_.push_back(now() - t);
  }
  double ours() const { return median(ours_); }
  double blas() const { return median(blas_); }

 private:
  struct One {
    Array stored, wide;  // [out, in]
    std::int64_t rows;
    int forward, backward;
    std::int64_t size() const { return rows * std::max(stored.dim(0), stored.dim(1)); }
  };
  struct Sum {
    std::int64_t out, in, tokens;
  };
  static Array part(const Array& all, std::int64_t rows, std::int64_t columns) {
    return all.slice(0, 0, rows * columns).reshape({rows, columns});
  }
  void add(const Array& w, std::int64_t rows, int forward, int backward) {
    const bool row_major = w.contiguous();
    all_.push_back(
        {w, is_half(w.dtype()) || !row_major ? w.own_copy() : w, rows, forward, backward});
  }
  void ours(std::int64_t rows, const Array& b) {
    Array c = part(y_, rows, b.dim(1));
    kernels::gemm(c, part(x_, rows, b.dim(0)), b, 1, 0);
  }
  void blas(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, std::int64_t m, std::int64_t n, std::int64_t k,
            const Array& a, std::int64_t lda, const Array& b, std::int64_t ldb, float beta) {
    cblas_sgemm(CblasRowMajor, ta, tb, int(m), int(n), int(k), 1, a.data<float>(), int(lda),
                b.data<float>(), int(ldb), beta, y_.data<float>(), int(n));
  }

  std::vector<One> all_;
  std::vector<Sum> sums_;
  Array x_, y_;
  std::vector<double> ours_, blas_;
};

struct Flop {
  double lora, full;
};
Flop useful(const Side& arm) {
  const Arch& arch = arm.model->arch();
  const double d = arch.width, p = 4 * d * d + 2 * d * arch.hidden, layers = arch.layers;
  double n = 0, pairs = 0;
  for (const int length : arm.batch.length) n += length, pairs += double(length) * length;
  const double head = arm.model->has_head() ? 0 : 4 * n * d * arch.vocab;
  const double attention = layers * 12 * pairs * d;
  return {n * layers * (4 * p + 6 * kRank * 4 * d) + attention + head,
          n * layers * 6 * p + attention + 1.5 * head};
}

void run(const std::string& name, int steps) {
  const Workload w = workload_named(name);
  Side lora(w, fmt::format("lora:r={},on=q+v", kRank)), full(w, "full"), bare(w, "");
  const auto& labels = lora.batch.token_label;
  const std::int64_t labelled = std::ranges::count_if(labels, [](int l) { return l >= 0; });
  Products products(*bare.model, lora.batch.tokens(), labelled);
  std::vector<double> blas;
  for (int i = -1; i < steps; ++i) {
    if (i == 0)  // the first was to warm up
      for (Side* arm : {&lora, &full, &bare}) arm->seconds.clear();
    blas.push_back(sgemm_seconds());
    lora.step(), full.step(), bare.step();
    products.time_ours(), products.time_blas();
    std::printf(
        "step %d: sgemm %.0f GFLOP/s; lora %.4f s, loss %.4f, gradient %.3g; full %.4f s, "
        "loss %.4f, gradient %.3g\n",
        i + 1, 2 * 4096.0 * 4096 * 4096 / blas.back() / 1e9, lora.seconds.back(), lora.loss,
        lora.norm, full.seconds.back(), full.loss, full.norm);
    std::fflush(stdout);
  }
  const Arch& arch = lora.model->arch();
  const double rate = 2 * 4096.0 * 4096 * 4096 / median(blas), n = double(lora.batch.tokens());
  const double a = median(lora.seconds), b = median(full.seconds), c = median(bare.seconds);
  const Flop flop = useful(lora);
  std::printf("\nOpenBLAS core %s, sgemm 4096^3 %.0f GFLOP/s; our kernels: %s\n",
              openblas_get_corename(), rate / 1e9, core_name().c_str());
  std::printf("%s: %d layers, width %d, %d sequences of %.0f tokens, medians of %d steps\n",
              name.c_str(), arch.layers, arch.width, lora.batch.sequences(), n, steps);
  std::printf("seconds: lora %.4f, full %.4f, bare model %.4f; products %.4f, by the BLAS %.4f\n",
              a, b, c, products.ours(), products.blas());
  const auto line = [](const char* what, double value, const char* aim) {
    std::printf("%-52s %.3f   (aim: %s)\n", what, value, aim);
  };
  line("lora step, useful FLOP/s / sgemm's", flop.lora / a / rate, "at least 0.90");
  line("lora step / the bare model's, time", a / c, "at most 1.02");
  line("lora step / full step, time", a / b, "at most 0.70");
  line("full rate / lora rate", flop.full / b / (flop.lora / a), "at least 0.95");
  line("products, ours / the BLAS's, time", products.ours() / products.blas(), "at most 1.02");
  line("lora: bytes kept per token and block / ((6d+F) 4)",
       double(lora.kept_bytes()) / (n * arch.layers) / ((6.0 * arch.width + arch.hidden) * 4),
       "at most 1.01");
}

}  // namespace
}  // namespace graft

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 20;
  try {
    graft::check(steps >= 1 && argc <= 3, "usage: bench_step [steps] [workload]");
    graft::run(argc > 2 ? argv[2] : "gpt2", steps);
  } catch (const graft::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 2;
  }
  return 0;
}
