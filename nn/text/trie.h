// A trie over bytes: which of many strings stand at a place of a text, in one walk along it.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace graft {

class Trie {
 public:
  Trie() = default;
  // `keys` are strings with their values, 0 or more. Empty strings are left out; of equal ones the
  // last counts.
  explicit Trie(std::vector<std::pair<std::string_view, int>> keys);

  // Calls f(size, value) for every key that text begins with, shortest first.
  template <class F>
  void prefixes(std::string_view text, F f) const {
    if (text.empty() || nodes_.empty()) return;
    int node = first_[static_cast<unsigned char>(text[0])];
    for (std::size_t size = 1; node >= 0; ++size) {
      if (nodes_[std::size_t(node)].value >= 0) f(size, nodes_[std::size_t(node)].value);
      if (size == text.size()) return;
      node = child(nodes_[std::size_t(node)], static_cast<unsigned char>(text[size]));
    }
  }

  struct Match {
    std::size_t size = 0;
    int value = -1;  // -1: none
  };
  Match longest(std::string_view text) const {
    Match best;
    prefixes(text, [&](std::size_t size, int value) { best = {size, value}; });
    return best;
  }

 private:
  struct Node {
    int value = -1, children = 0;  // `children`: index of the first; they lie side by side
    unsigned char count_less_one = 0;
    bool leaf = true;
  };
  int child(const Node& node, unsigned char label) const {
    if (node.leaf) return -1;
    const unsigned char* labels = labels_.data() + node.children;
    int low = 0, high = node.count_less_one;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (labels[middle] < label)
        low = middle + 1;
      else
        high = middle;
    }
    return labels[low] == label ? node.children + low : -1;
  }
  std::array<int, 256> first_{};
  std::vector<Node> nodes_;
  std::vector<unsigned char> labels_;  // by node: the byte that leads to it
};

}  // namespace graft
