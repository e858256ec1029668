// Tasks about pairs: hypernymy in two and three classes, antonyms and synonyms, graded similarity.
#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>
#include <unordered_map>

#include "experiments/data/task_rows.h"

namespace graft::data {
namespace {

struct Link {
  int child, parent;
};

// Equal hashes keep the order of WordNet's files.
template <class T, class Hash>
void sort_by_hash(std::vector<T>& items, const Hash& hash) {
  std::vector<std::pair<std::uint32_t, T>> keyed;
  for (const T& item : items) keyed.emplace_back(hash(item), item);
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& x, const auto& y) { return x.first < y.first; });
  for (std::size_t i = 0; i < items.size(); ++i) items[i] = keyed[i].second;
}

// The hyponyms of each noun and verb synset that has any, in hash order; at most `most` of each if
// > 0.
std::map<int, std::vector<int>> families(const WordNet& wn, std::size_t most = 0) {
  std::map<int, std::vector<int>> all;
  for (int i = 0; i < wn.size(); ++i)
    if (wn[i].pos == 'n' || wn[i].pos == 'v')
      for (const auto& p : wn[i].pointers)
        if (p.symbol == "@") all[p.target].push_back(i);
  for (auto& [parent, children] : all) {
    sort_by_hash(children, [&wn](int child) { return choose("child", wn[child].id()); });
    if (most > 0 && children.size() > most) children.resize(most);
  }
  return all;
}

// Walks up without remembering where it was: hypernyms form no cycles and few diamonds.
bool is_above(const WordNet& wn, int upper, int lower) {
  for (const auto& p : wn[lower].pointers)
    if (p.symbol == "@" && (p.target == upper || is_above(wn, upper, p.target))) return true;
  return false;
}

// For every link one false one: the child of another link of the group under this parent. Each
// child serves once, so that neither side of a pair tells the label. Links left without one are
// dropped.
void add_hyper2_rows(const WordNet& wn, const std::vector<Link>& links, Split split,
                     std::vector<Row>& rows) {
  std::vector<bool> used(links.size(), false);
  for (std::size_t i = 0; i < links.size(); ++i) {
    const Link& link = links[i];
    for (std::size_t step = 1; step < std::min<std::size_t>(links.size(), 200); ++step) {
      const std::size_t j = (i + step) % links.size();
      const int child = links[j].child;
      if (used[j] || child == link.parent || is_above(wn, link.parent, child)) continue;
      used[j] = true;
      rows.push_back({described(wn[link.child]), described(wn[link.parent]), 1, 0, split});
      rows.push_back({described(wn[child]), described(wn[link.parent]), 0, 0, split});
      break;
    }
  }
}

// A word without the affixes that make antonyms and adverbs, so that relatives share a key.
std::string stem(std::string word) {
  static constexpr std::array<std::string_view, 12> kPrefixes = {
      "un", "in", "im", "il", "ir", "dis", "non", "mis", "anti", "counter", "de", "over"};
  static constexpr std::array<std::string_view, 6> kSuffixes = {"ness", "ly",  "less",
                                                                "ful",  "ity", "y"};
  for (const auto suffix : kSuffixes)
    if (word.size() >= suffix.size() + 3 && word.ends_with(suffix))
      word.resize(word.size() - suffix.size());
  for (const auto prefix : kPrefixes) {
    if (word.size() < prefix.size() + 3 || !word.starts_with(prefix)) continue;
    word.erase(0, prefix.size());
    if (word.starts_with('-')) word.erase(0, 1);
    break;
  }
  return word;
}

// Disjoint sets of stems; the least stem of a set names it.
class Clusters {
 public:
  const std::string& find(const std::string& stem) {
    const auto [at, fresh] = parent_.try_emplace(stem, stem);
    if (fresh || at->second == stem) return at->first;
    const std::string root = find(at->second);
    return parent_[stem] = root;
  }
  void join(const std::string& x, const std::string& y) {
    const std::string a = find(x), b = find(y);
    if (a != b) parent_[std::max(a, b)] = std::min(a, b);
  }

 private:
  std::map<std::string, std::string> parent_;
};

using WordPair = std::pair<std::string, std::string>;

// What antonyms and synonyms there are among single lower-case words, by part of speech.
struct Lexicon {
  std::set<WordPair> antonyms[4];
  std::map<std::string, std::set<std::string>> synonyms[4];
  Clusters clusters;

  explicit Lexicon(const WordNet& wn) {
    for (const Synset& s : wn.synsets()) {
      const auto pos = std::string_view("nvar").find(s.pos);
      for (const auto& p : s.pointers) {
        if (p.symbol != "!" || p.source_word == 0) continue;
        const std::string& x = s.words[p.source_word - 1];
        const std::string& y = wn[p.target].words[p.target_word - 1];
        if (!usable(x) || !usable(y) || x == y) continue;
        antonyms[pos].insert(std::minmax(x, y));
        clusters.join(stem(x), stem(y));
      }
      for (const auto& x : s.words)
        for (const auto& y : s.words)
          if (x != y && usable(x) && usable(y)) synonyms[pos][x].insert(y);
    }
  }

  Split split(const std::string& word) { return split_of(clusters.find(stem(word)), {0.25, 0.40}); }

  static bool usable(const std::string& word) {
    return word.find_first_not_of("abcdefghijklmnopqrstuvwxyz- ") == std::string::npos;
  }
};

Row word_pair(const std::string& x, const std::string& y, int label, Split split) {
  const bool turn = choose("turn", std::min(x, y) + ' ' + std::max(x, y)) & 1;
  return turn == (x < y) ? Row{y, x, label, 0, split} : Row{x, y, label, 0, split};
}

// Up to two synonyms of `word` in its split: few words have one there, so that one each is too few.
std::vector<std::string> synonyms_nearby(Lexicon& lexicon, int pos, const std::string& word,
                                         Split split) {
  std::map<std::uint32_t, std::string> near;
  for (const std::string& s : lexicon.synonyms[pos][word])
    if (lexicon.split(s) == split && !lexicon.antonyms[pos].contains(std::minmax(s, word)))
      near.emplace(choose("synonym", word + ' ' + s), s);
  std::vector<std::string> out;
  for (const auto& [place, s] : near)
    if (out.size() < 2) out.push_back(s);
  return out;
}

// Beside each antonym pair (x, y): synonyms of both, and x or y with some word of the same split.
void add_antsyn_rows(Lexicon& lexicon, int pos, std::vector<Row>& rows) {
  std::map<Split, std::vector<std::string>> vocabulary;
  std::set<std::string> words;
  for (const auto& [x, y] : lexicon.antonyms[pos]) words.insert({x, y});
  for (const std::string& w : words) vocabulary[lexicon.split(w)].push_back(w);
  for (const auto& [x, y] : lexicon.antonyms[pos]) {
    const Split split = lexicon.split(x);
    const std::string key = x + ' ' + y;
    rows.push_back(word_pair(x, y, 0, split));
    const bool second = choose("side", key) & 1;
    const std::string& other = second ? x : y;
    for (const std::string& word : {x, y})
      for (const std::string& s : synonyms_nearby(lexicon, pos, word, split))
        rows.push_back(word_pair(word, s, 1, split));
    const auto& all = vocabulary[split];
    for (std::uint32_t t = 0; t < 8; ++t) {
      const std::string& u = all[choose("unrelated", key + std::to_string(t)) % all.size()];
      if (u == other || lexicon.clusters.find(stem(u)) == lexicon.clusters.find(stem(other)) ||
          lexicon.synonyms[pos][other].contains(u))
        continue;
      rows.push_back(word_pair(other, u, 2, split));
      break;
    }
  }
}

// Wu and Palmer (1994): 2 depth(lcs) / (depth(a) + depth(b)) through the common hypernym that makes
// it greatest. Depth counts synsets on the shortest way to the root.
class WuPalmer {
 public:
  explicit WuPalmer(const WordNet& wn) : wn_(wn) {}

  double operator()(int a, int b) {
    std::map<int, int> to_a;
    for (const Above& x : with_self(a)) to_a[x.synset] = x.distance;
    double best = 0;
    for (const Above& y : with_self(b)) {
      const auto x = to_a.find(y.synset);
      if (x == to_a.end()) continue;
      const double depth = depth_of(y.synset);
      best = std::max(best, 2 * depth / (2 * depth + x->second + y.distance));
    }
    return best;
  }

 private:
  std::vector<Above> with_self(int i) const {
    auto all = ancestors(wn_, i, true);
    all.insert(all.begin(), {i, 0});
    return all;
  }
  int depth_of(int i) {
    const auto [at, fresh] = depth_.try_emplace(i, 1);
    if (!fresh) return at->second;
    int best = 0;
    for (const auto& p : wn_[i].pointers)
      if (p.symbol == "@" || p.symbol == "@i") {
        const int d = depth_of(p.target);
        best = best == 0 ? d : std::min(best, d);
      }
    return depth_[i] = best + 1;
  }

  const WordNet& wn_;
  std::unordered_map<int, int> depth_;
};

// Partners for noun synsets: a hypernym up to three levels above, or such a hypernym of another
// synset of the same lexicographer file, or of any other; always of the same split. As every
// partner is somebody's hypernym, how general it is does not tell how near.
class NounPairs {
 public:
  enum Kind { above, alike, any };
  static constexpr std::array kKinds = {above, alike, any};

  explicit NounPairs(const WordNet& wn) : wn_(wn) {
    for (int i = 0; i < wn.size() && wn[i].pos == 'n'; ++i) {
      split_.push_back(split_of(normalised(wn[i].definition, 6)));
      any_[split_[i]].push_back(i);
      alike_[{split_[i], wn[i].lexfile}].push_back(i);
    }
  }

  std::map<std::pair<std::uint32_t, int>, int> in_hash_order() const {
    std::map<std::pair<std::uint32_t, int>, int> order;
    for (int i = 0; i < static_cast<int>(split_.size()); ++i)
      order[{choose("pair", wn_[i].id()), i}] = i;
    return order;
  }

  Split split(int i) const { return split_[i]; }

  // -1 where there is none.
  int partner(int i, Kind kind) const {
    const std::string id = wn_[i].id();
    const auto& others =
        kind == alike ? alike_.at({split_[i], wn_[i].lexfile}) : any_.at(split_[i]);
    for (int attempt = 0; attempt < 16; ++attempt) {
      const std::string key = id + std::to_string(attempt);
      const int from = kind == above ? i : others[choose("other", key) % others.size()];
      std::vector<int> near;
      for (const Above& a : ancestors(wn_, from, true))
        if (a.distance <= 3 && split_[a.synset] == split_[i] && a.synset != i)
          near.push_back(a.synset);
      if (!near.empty()) return near[choose("partner", id) % near.size()];
      if (kind == above) break;
    }
    return -1;
  }

  // Whether one more pair of this kind would be welcome.
  bool wanted(Split split, Kind kind) {
    return taken_[{split, kind}] < (split == Split::train ? 3800 : 390);
  }
  void count(Split split, Kind kind) { ++taken_[{split, kind}]; }

 private:
  const WordNet& wn_;
  std::vector<Split> split_;
  std::map<Split, std::vector<int>> any_;
  std::map<std::pair<Split, int>, std::vector<int>> alike_;
  std::map<std::pair<Split, int>, int> taken_;
};

}  // namespace

TaskData make_hyper2(const WordNet& wn) {
  constexpr std::size_t kMostChildren = 12;  // a few hypernyms have hundreds
  TaskData task;
  task.name = "hyper2", task.pair = true;
  task.labels = {"no", "yes"};
  task.metric = "accuracy";
  task.note = "two synsets as `word : definition`: is the first a kind of the second?";
  std::map<std::pair<Split, int>, std::vector<Link>> groups;
  for (const auto& [parent, children] : families(wn, kMostChildren))
    for (const int child : children)
      groups[{split_of(wn[parent].id()), wn[parent].lexfile}].push_back({child, parent});
  std::vector<Row> rows;
  for (auto& [group, links] : groups) {
    sort_by_hash(links, [&wn](const Link& l) {
      return choose("link", wn[l.child].id() + wn[l.parent].id());
    });
    add_hyper2_rows(wn, links, group.first, rows);
  }
  finish(task, std::move(rows), {30000, 3000, 0, 0});
  return task;
}

TaskData make_hyper3(const WordNet& wn) {
  TaskData task;
  task.name = "hyper3", task.pair = true;
  task.labels = {"entails", "reverse", "sibling"};
  task.metric = "accuracy";
  task.note =
      "two synsets as `word : definition`: the first is a kind of the second, the reverse, or both "
      "of a third";
  std::vector<Row> rows;
  for (const auto& [parent, children] : families(wn)) {
    if (children.size() < 2) continue;
    const Split split = split_of(wn[parent].id());
    const std::uint32_t start = choose("start", wn[parent].id());
    for (std::size_t i = 0; i < children.size(); ++i) {
      const std::string child = described(wn[children[i]]), upper = described(wn[parent]);
      const int label = static_cast<int>((start + i) % 3);
      if (label == 0) rows.push_back({child, upper, 0, 0, split});
      if (label == 1) rows.push_back({upper, child, 1, 0, split});
      if (label == 2)
        rows.push_back({child, described(wn[children[(i + 1) % children.size()]]), 2, 0, split});
    }
  }
  finish(task, std::move(rows), {0, 0, 10000, 1000});
  return task;
}

TaskData make_antsyn(const WordNet& wn) {
  TaskData task;
  task.name = "antsyn", task.pair = true;
  task.labels = {"antonym", "synonym", "unrelated"};
  task.metric = "accuracy";
  task.note = "two words: opposite in meaning, alike, or neither";
  Lexicon lexicon(wn);
  std::vector<Row> rows;
  for (int pos = 0; pos < 4; ++pos) add_antsyn_rows(lexicon, pos, rows);
  finish(task, std::move(rows), {0, 0, 2200, 0});
  return task;
}

TaskData make_similarity(const WordNet& wn) {
  TaskData task;
  task.name = "similarity_wn", task.kind = TaskData::Kind::regression, task.pair = true;
  task.metric = "pearson";
  task.note = "two definitions of nouns -> 5 x the Wu-Palmer similarity of their synsets";
  NounPairs pairs(wn);
  WuPalmer similarity(wn);
  std::vector<Row> rows;
  for (const auto& [place, i] : pairs.in_hash_order()) {
    const Split split = pairs.split(i);
    // One kind of pair after the other, as far as each is wanted and can be had.
    for (const auto kind : NounPairs::kKinds) {
      if (!pairs.wanted(split, kind)) continue;
      const int partner = pairs.partner(i, kind);
      if (partner < 0) continue;
      pairs.count(split, kind);
      const auto score = static_cast<float>(std::round(500 * similarity(i, partner)) / 100);
      rows.push_back({wn[i].definition, wn[partner].definition, -1, score, split});
      break;
    }
  }
  finish(task, std::move(rows), {});
  return task;
}

}  // namespace graft::data
