#include "peft/virtual_rows.h"

#include <charconv>

namespace graft {

Sequence with_rows(Sequence s, const Tensor& rows, const std::vector<std::vector<Gap>>& gaps,
                   std::int32_t source, const Ctx& ctx) {
  check(ctx.batch && gaps.size() == s.length.size(),
        "virtual rows: {} lists of gaps for {} sequences of {} batch", gaps.size(), s.length.size(),
        ctx.batch ? "a" : "no");
  const auto tokens = static_cast<std::int32_t>(s.rows.dim(0));
  Sequence out;
  out.memory = s.memory;
  std::vector<std::int32_t> from;  // of [s.rows; rows]
  int start = 0;
  for (std::size_t i = 0; i < s.length.size(); ++i) {
    const int length = s.length[i];
    std::int32_t moved = 0, next = 0;
    auto gap = gaps[i].begin();
    const std::int32_t first = ctx.cache ? ctx.cache->position()[i] : 0;
    for (int at = 0; at <= length; ++at) {
      const std::int32_t here = at < length ? s.position[start + at]
                                : at > 0    ? s.position[start + at - 1] + 1
                                            : first;
      for (; gap != gaps[i].end() && gap->at == at; ++gap)
        for (int j = 0; j < gap->count; ++j) {
          from.push_back(tokens + next++);
          out.source.push_back(source);
          out.position.push_back(here + moved++);
          out.example.push_back(static_cast<std::int32_t>(ctx.batch->example[i]));
        }
      if (at == length) break;
      from.push_back(start + at);
      out.source.push_back(s.source[start + at]);
      out.position.push_back(here + moved);
      out.example.push_back(s.example[start + at]);
    }
    check(gap == gaps[i].end() && next <= rows.dim(0),
          "virtual rows: gaps that are not in ascending order in 0..{}, or ask for more than {}",
          length, rows.dim(0));
    out.length.push_back(length + next);
    start += length;
  }
  out.rows = gather(concat({s.rows, rows}, 0), Array::of(from));
  return out;
}

std::vector<Stack> stacks_of(Options& o, const Arch& arch, const std::string& standard) {
  if (!arch.crosses()) return {arch.stack};
  const std::string in = o.choice("in", standard, {"encoder", "decoder", "both"});
  if (in == "both") return {Stack::encoder, Stack::decoder};
  return {in == "encoder" ? Stack::encoder : Stack::decoder};
}

Model& model_of(Model& m, Stack stack) {
  return m.encoder && stack == Stack::encoder ? *m.encoder : m;
}

std::vector<std::vector<std::int32_t>> tokens_of(Options& o, const Arch& arch) {
  check(!o.has("text"),
        "{}: text= is made into tokens= by the command line, where a tokenizer is at hand; give "
        "tokens=, ids joined by '-'",
        o.method());
  std::vector<std::vector<std::int32_t>> all;
  const std::string text = o.text("tokens", "");
  const char *at = text.data(), *end = at + text.size();
  bool more = at != end;
  if (more) all.emplace_back();
  while (more) {
    std::int32_t id = -1;
    const auto [after, error] = std::from_chars(at, end, id);
    check(error == std::errc() && 0 <= id && id < arch.vocab &&
              (after == end || (after + 1 < end && (*after == '-' || *after == '.'))),
          "{}: tokens={}; need ids of 0..{}, joined by '-' (by '.' where they share a row)",
          o.method(), text, arch.vocab - 1);
    all.back().push_back(id);
    more = after != end;
    if (more && *after == '-') all.emplace_back();
    at = after + 1;
  }
  return all;
}

}  // namespace graft
