#include "nn/text/trie.h"

#include <algorithm>
#include <cstdint>

namespace graft {
namespace {

struct Range {  // keys that share their first `depth` bytes, those of `node`
  std::size_t begin, end, depth;
  int node;
};

}  // namespace

Trie::Trie(std::vector<std::pair<std::string_view, int>> keys) {
  first_.fill(-1);
  std::erase_if(keys, [](const auto& key) { return key.first.empty(); });
  std::ranges::stable_sort(keys, {}, &std::pair<std::string_view, int>::first);
  if (keys.empty()) return;
  nodes_.emplace_back();  // the root
  labels_.push_back(0);
  // Breadth first, so that the children of a node lie side by side.
  std::vector<Range> level{{0, keys.size(), 0, 0}};
  while (!level.empty()) {
    std::vector<Range> next;
    for (Range range : level) {
      for (; range.begin < range.end && keys[range.begin].first.size() == range.depth;
           ++range.begin)
        nodes_[std::size_t(range.node)].value = keys[range.begin].second;
      if (range.begin == range.end) continue;
      const int first_child = int(nodes_.size());
      for (std::size_t at = range.begin; at < range.end;) {
        const auto label = [&](std::size_t i) {
          return static_cast<unsigned char>(keys[i].first[range.depth]);
        };
        std::size_t end = at;
        while (end < range.end && label(end) == label(at)) ++end;
        next.push_back({at, end, range.depth + 1, int(nodes_.size())});
        if (range.node == 0) first_[label(at)] = int(nodes_.size());
        labels_.push_back(label(at));
        nodes_.emplace_back();
        at = end;
      }
      Node& node = nodes_[std::size_t(range.node)];
      node.children = first_child;
      node.count_less_one = static_cast<unsigned char>(int(nodes_.size()) - first_child - 1);
      node.leaf = false;
    }
    level = std::move(next);
  }
}

}  // namespace graft
