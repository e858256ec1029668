#include "tensor/fastfood.h"

#include <bit>
#include <cmath>

#include "tensor/parallel.h"

namespace graft {
namespace {

std::int64_t power_of_two(std::int64_t n) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)));
}

// Fisher and Yates's shuffle: a uniform permutation, one addressed draw for each place. 64 bits
// times n, high half: a bias of n / 2^64.
void shuffle(std::int32_t* place, std::int64_t n, Key key, std::uint32_t stream) {
  for (std::int64_t i = 0; i < n; ++i) place[i] = static_cast<std::int32_t>(i);
  for (std::int64_t i = n - 1; i > 0; --i) {
    const Counter r = philox({static_cast<std::uint32_t>(i), 0, 2, stream}, key);
    const std::uint64_t bits = std::uint64_t{r[0]} << 32 | r[1];
    const auto other = static_cast<std::int64_t>(
        (static_cast<unsigned __int128>(bits) * static_cast<std::uint64_t>(i + 1)) >> 64);
    std::swap(place[i], place[other]);
  }
}

}  // namespace

Fastfood draw_fastfood(std::int64_t in, std::int64_t out, double norm, Key key,
                       std::uint32_t stream) {
  check(in > 0 && out > 0 && std::max(in, out) <= std::int64_t{1} << 30,
        "fastfood: from {} numbers to {}; need 1 to 2^30 of each", in, out);
  Fastfood p;
  p.in = in, p.out = out;
  p.inner = power_of_two(in);
  p.length = power_of_two(std::max(in, out));
  p.sign = Array::empty({in}, Dtype::i32);
  p.place = Array::empty({p.length}, Dtype::i32);
  p.gaussian = Array::empty({p.length});
  std::int32_t* sign = p.sign.data<std::int32_t>();
  for (std::int64_t i = 0; i < in; ++i)
    sign[i] = philox({static_cast<std::uint32_t>(i), 0, 3, stream}, key)[0] & 1 ? 1 : -1;
  std::int32_t* place = p.place.data<std::int32_t>();
  shuffle(place, p.length, key, stream);
  float* gaussian = p.gaussian.data<float>();
  const auto mask = static_cast<std::int32_t>(p.inner - 1);
  parallel_for(p.length, 4096, [=](std::int64_t i) {
    place[i] &= mask;
    gaussian[i] = static_cast<float>(normal(key, stream, static_cast<std::uint64_t>(i)));
  });
  double squares = 0;
  for (std::int64_t i = 0; i < p.length; ++i) squares += double{gaussian[i]} * gaussian[i];
  p.scale = norm / std::sqrt(static_cast<double>(out) * squares);
  return p;
}

}  // namespace graft
