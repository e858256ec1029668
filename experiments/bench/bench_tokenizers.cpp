// How fast a tokenizer encodes a text, in MB/s of its bytes, on one thread.
//
//   bench_tokenizers FOLDER TEXT [REPEATS]
//
// FOLDER holds a tokenizer as the hub lays it out (or is a tokenizer.json), TEXT is encoded line by
// line. `cold` is the first pass, with no word met before; `warm` the best of REPEATS (5) further
// ones. tests/fixtures/tokenizer/bench_tokenizers.py measures Hugging Face's in the same way.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "nn/files/atomic.h"
#include "nn/text/tokenizer.h"
#include "tensor/error.h"

namespace {

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

struct Pass {
  double seconds;
  std::size_t ids;
};

Pass encode_all(const graft::Tokenizer& tokenizer, const std::vector<std::string_view>& lines) {
  const auto start = std::chrono::steady_clock::now();
  std::size_t ids = 0;
  for (const std::string_view line : lines) ids += tokenizer.encode(line).size();
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  return {passed.count(), ids};
}

int run(const std::filesystem::path& folder, const std::filesystem::path& file, int repeats) {
  const auto start = std::chrono::steady_clock::now();
  const auto tokenizer = graft::Tokenizer::load(folder);
  const std::chrono::duration<double> loading = std::chrono::steady_clock::now() - start;
  const std::string text = graft::read_file(file);
  const std::vector<std::string_view> lines = lines_of(text);
  const Pass cold = encode_all(tokenizer, lines);
  double warm = cold.seconds;
  for (int i = 0; i < repeats; ++i) warm = std::min(warm, encode_all(tokenizer, lines).seconds);
  const double megabytes = double(text.size()) / 1e6;
  fmt::print("{}: load {:.2f} s, {} ids, cold {:.1f} MB/s, warm {:.1f} MB/s\n", folder.string(),
             loading.count(), cold.ids, megabytes / cold.seconds, megabytes / warm);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) {
    fmt::print(stderr, "bench_tokenizers FOLDER TEXT [REPEATS]\n");
    return 2;
  }
  try {
    return run(argv[1], argv[2], argc == 4 ? std::atoi(argv[3]) : 5);
  } catch (const graft::Error& error) {
    fmt::print(stderr, "bench_tokenizers: {}\n", error.what());
    return 1;
  }
}
