// Matrix multiplication. Written here and not taken from a BLAS, because of a promise that no BLAS
// makes: every element of c is one chain of fused multiply-adds in the order of K. So its bits do
// not depend on the number of threads, on the other rows of a batch, on blocking, or on a library
// version; splitting a sum over rows into two calls changes nothing.
//
// b is packed a block at a time (columns x depth); all threads take tasks from one counter: first
// those that pack the next block, then those that multiply by this one. Between blocks the chains
// wait in c. a is mostly read where it lies. A b of half precision is widened as it is packed.
// A constant b is packed once and kept (packed.h). Where a has a few rows alone, b is not packed at
// all (gemm_thin.h).
#include <omp.h>

#include <atomic>

#include "tensor/kernels.h"
#include "tensor/kernels/gemm_pack.h"
#include "tensor/kernels/gemm_thin.h"
#include "tensor/kernels/scratch.h"
#include "tensor/packed.h"
#include "tensor/parallel.h"

namespace graft::cpu {
namespace {

using std::int64_t;

constexpr int64_t kDepthBytes = 4096;          // of one row of a: K is cut into such blocks
constexpr int64_t kBlockBytes = 4 << 20;       // of one packed block of b
constexpr int64_t kRowBlock = 15 * kTileRows;  // rows of a that stay in the second-level cache
constexpr int64_t kSerialFlops = 1 << 20;      // below, waking a thread costs more than it gains

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// K in blocks of even size. Packed panels are cut so, wherever they are kept.
template <class T>
int64_t depth_of_block(int64_t depth) {
  return ceil_div(depth, ceil_div(depth, kDepthBytes / int64_t{sizeof(T)}));
}

// All of b as products read it: for each block of depth the panels of all columns.
template <class T, class S>
void pack_whole(T* to, const Matrix<const S>& b, int64_t columns, int64_t depth) {
  const int64_t block = depth_of_block<T>(depth), width = padded_columns<T>(columns);
  const int64_t panels = ceil_div(columns, kPanel<T>);
  parallel_for(panels * ceil_div(depth, block), 4, [=](int64_t i) {
    const int64_t k = i / panels * block, part = std::min(block, depth - k);
    const int64_t from = i % panels * kPanel<T>, n = std::min<int64_t>(kPanel<T>, columns - from);
    pack_panel(to + k * width + from * part, panel_width<T>(n), b.from(k, from), part, n, T{1});
  });
}

// S is what b is stored in.
template <class T, class S>
struct Gemm {
  static constexpr int kPanel = cpu::kPanel<T>;

  Matrix<const T> a;
  Matrix<const S> b;
  Matrix<T> c;
  int64_t rows, columns, depth;
  T alpha;
  Start<T> start = {};
  const T* kept = nullptr;  // all of b packed, where it is kept

  // How it is cut: blocks of columns, within each blocks of depth.
  int64_t column_block = 0, column_blocks = 0, depth_block = 0, depth_blocks = 0;
  int64_t row_block = 0, row_blocks = 0, panel_group = 0;
  T* packed[2] = {};
  // Three counters: while stage s counts in one, the next stage's is set to zero, and the last
  // stage's may still be read by a thread that finds nothing left.
  std::atomic<int64_t> next[3] = {0, 0, 0};

  void plan(int threads) {
    constexpr int64_t kBlock = kBlockBytes / sizeof(T);
    depth_block = depth_of_block<T>(depth);
    const int64_t panels = ceil_div(columns, kPanel);
    const int64_t most = kept ? panels : std::max<int64_t>(kBlock / depth_block / kPanel, 1);
    column_blocks = ceil_div(panels, most);
    column_block = ceil_div(panels, column_blocks) * kPanel;
    row_blocks = ceil_div(rows, kRowBlock);
    row_block = ceil_div(ceil_div(rows, row_blocks), kTileRows) * kTileRows;
    row_blocks = ceil_div(rows, row_block);
    // About eight tasks a thread, so that the last one is short.
    const int64_t groups = threads == 1 ? 1 : ceil_div(8 * threads, row_blocks);
    panel_group = std::max<int64_t>(column_block / kPanel / groups, 1);
    // Rounding up may have made the last block of many empty.
    depth_blocks = ceil_div(depth, depth_block);
    column_blocks = ceil_div(columns, column_block);
    if (kept) return;
    const int64_t size = depth_block * column_block;
    const bool two = column_blocks * depth_blocks > 1;
    packed[0] = scratch<struct GemmColumns, T>(two ? 2 * size : size);
    packed[1] = two ? packed[0] + size : packed[0];
  }

  int64_t stages() const { return column_blocks * depth_blocks; }
  struct Block {
    int64_t column, columns, k, depth;
    int64_t panels() const { return ceil_div(columns, kPanel); }
  };
  Block block(int64_t stage) const {
    const int64_t column = stage / depth_blocks * column_block;
    const int64_t k = stage % depth_blocks * depth_block;
    return {column, std::min(column_block, columns - column), k, std::min(depth_block, depth - k)};
  }

  void pack(int64_t stage, int64_t panel) {
    const Block part = block(stage);
    const int64_t from = panel * kPanel;
    const int64_t n = std::min<int64_t>(kPanel, part.columns - from);
    pack_panel(packed[stage % 2] + from * part.depth, panel_width<T>(n),
               b.from(part.k, part.column + from), part.depth, n, alpha);
  }
  const T* packed_block(int64_t stage) const {
    return kept ? kept + block(stage).k * padded_columns<T>(columns) : packed[stage % 2];
  }

  // Whether rows of a are packed for so many panels: reading them as one stream saves a fiftieth of
  // the time, of which packing takes as much as a dozen panels save. Rows a multiple of a page
  // apart all fall into the same few places of the first-level cache, which costs a sixth. A
  // transposed a has a line of the cache for each step of the depth, so that a deep tile does not
  // fit there: with 32 KB that costs two fifths of the time, and at some distances two thirds.
  bool packs_rows(int64_t panels, int64_t deep) const {
    if (a.column == 1) return panels >= (a.row * sizeof(T) % 4096 == 0 ? 4 : 12);
    return a.row == 1 && panels >= 4 && deep > 256;
  }

  // The rows [begin, begin + count) of a, [k, k + depth) deep, as multiply_panel takes them.
  Left<T> left(int64_t begin, int64_t count, int64_t k, int64_t depth, bool packed) const {
    const Matrix<const T> part = a.from(begin, k);
    if (!packed) return {part};
    T* to = scratch<struct GemmRows, T>(row_block * depth_block + kLanes<T>);
    for (int64_t i = 0; i < count;) {
      const int n = tile_rows(count - i);
      pack_rows(to + i * depth, part.from(i, 0), depth, n);
      i += n;
    }
    return {{to, 0, 0}, true};
  }

  // The panels [first, last) of b against the rows [begin, end) of a.
  void multiply(int64_t stage, int64_t first, int64_t last, int64_t begin, int64_t end) {
    const Block part = block(stage);
    const Left<T> rows =
        left(begin, end - begin, part.k, part.depth, packs_rows(last - first, part.depth));
    for (int64_t panel = first; panel < last; ++panel) {
      const int64_t from = panel * kPanel;
      const int n = static_cast<int>(std::min<int64_t>(kPanel, part.columns - from));
      const Matrix<T> to = c.from(begin, part.column + from);
      multiply_panel(
          to, rows, packed_block(stage) + from * part.depth, end - begin, n, part.depth,
          part.k == 0 ? start.from(begin, part.column + from) : Start<T>{to.data, to.row});
    }
  }

  // The columns that need no packing, because there are few rows; what is left of the problem then.
  void take_thin() {
    const auto take = [&]<int Rows>(std::integral_constant<int, Rows>) {
      const std::int64_t done =
          b.row == 1 ? thin_columns<Rows, true>(c, a, b, columns, depth, alpha, start, kSerialFlops)
          : b.column == 1
              ? thin_columns<Rows, false>(c, a, b, columns, depth, alpha, start, kSerialFlops)
              : 0;
      b = b.from(0, done);
      c = c.from(0, done);
      start = start.from(0, done);
      columns -= done;
    };
    if (rows == 1) take(std::integral_constant<int, 1>{});
    if (rows == 2) take(std::integral_constant<int, 2>{});
    if (rows == 3) take(std::integral_constant<int, 3>{});
    if (rows == 4) take(std::integral_constant<int, 4>{});
  }

  // Every thread of the team runs this; with parallel false there is no team.
  void work(bool parallel) {
    for (int64_t stage = kept ? 0 : -1; stage < stages(); ++stage) {
      std::atomic<int64_t>& counter = next[(stage + 3) % 3];
      next[(stage + 4) % 3].store(0, std::memory_order_relaxed);
      const int64_t packs = kept || stage + 1 == stages() ? 0 : block(stage + 1).panels();
      const int64_t panels = stage < 0 ? 0 : block(stage).panels();
      const int64_t tasks = packs + ceil_div(panels, panel_group) * row_blocks;
      for (int64_t task; (task = counter.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
        if (task < packs) {
          pack(stage + 1, task);
          continue;
        }
        const int64_t row = (task - packs) % row_blocks * row_block;
        const int64_t panel = (task - packs) / row_blocks * panel_group;
        multiply(stage, panel, std::min(panels, panel + panel_group), row,
                 std::min(rows, row + row_block));
      }
      if (parallel) {
#pragma omp barrier
      }
    }
  }
};

// `row`: what the chains begin from, unless it is undefined: then beta c.
template <class T, class S>
void run_gemm(Array& c, const Array& a, const Array& b, double alpha, double beta,
              const Array& row) {
  Gemm<T, S> g{.a = {a.data<T>(), a.stride(0), a.stride(1)},
               .b = {b.data<S>(), b.stride(0), b.stride(1)},
               .c = {c.data<T>(), c.stride(0), 1},
               .rows = c.dim(0),
               .columns = c.dim(1),
               .depth = a.dim(1),
               .alpha = static_cast<T>(alpha)};
  if (row.defined())
    g.start = {row.data<T>(), 0};
  else if (beta != 0)
    g.start = {g.c.data, g.c.row};
  if (g.depth == 0) {
    for (int64_t i = 0; i < g.rows; ++i)
      for (int64_t j = 0; j < g.columns; ++j)
        *g.c.at(i, j) = g.start.data ? *g.start.from(i, j).data : T{0};
    return;
  }
  g.take_thin();
  if (g.columns == 0) return;
  Array form;  // held while it is read
  if constexpr (std::is_same_v<T, float>) {
    if (alpha == 1 && g.rows > kThinRows)
      form = packed::form_of(b, packed_size<T>(g.depth, g.columns),
                             [&](T* to) { pack_whole(to, g.b, g.columns, g.depth); });
    if (form.defined()) g.kept = std::as_const(form).template data<T>();
  }
  const bool parallel = runs_parallel(2 * g.rows * g.columns * g.depth, kSerialFlops);
  g.plan(parallel ? omp_get_max_threads() : 1);
  if (!parallel) {
    g.work(false);
    return;
  }
#pragma omp parallel
  g.work(true);
}

void check_gemm(const Array& c, const Array& a) {
  check(c.stride(1) == 1 || c.dim(1) <= 1, "gemm: the columns of c {} have stride {}, not 1",
        c.shape(), c.stride(1));
  check(a.dtype() == c.dtype(), "gemm: a is {}, c {}; need one type (b alone may be half)",
        name(a.dtype()), name(c.dtype()));
}

}  // namespace

void gemm(Array& c, const Array& a, const Array& b, double alpha, double beta) {
  check_gemm(c, a);
  if (c.numel() == 0) return;
  dispatch_stored("gemm", c, b,
                  [&]<class T, class S>(T, S) { run_gemm<T, S>(c, a, b, alpha, beta, {}); });
}

void gemm_from_row(Array& c, const Array& a, const Array& b, const Array& row) {
  check_gemm(c, a);
  check(row.contiguous() && row.dtype() == c.dtype(), "gemm: row {} of {}, c {}", row.shape(),
        name(row.dtype()), name(c.dtype()));
  if (c.numel() == 0) return;
  dispatch_stored("gemm", c, b,
                  [&]<class T, class S>(T, S) { run_gemm<T, S>(c, a, b, 1, 0, row); });
}

}  // namespace graft::cpu
