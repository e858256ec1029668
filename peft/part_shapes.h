// The matrices of a block as an architecture alone tells them: what formulas of counts are made of.
#pragma once

#include <algorithm>

#include "nn/modules.h"

namespace graft {

struct PartShape {
  std::int64_t in = 0, out = 0;
};

// Of a linear of the blocks; of a sub-layer (attn, cross, mlp), its width on both sides.
inline PartShape shape_of(const Arch& a, Part part) {
  const std::int64_t d = a.width, inner = std::int64_t{a.heads} * a.head_width(),
                     kv = std::int64_t{a.kv_heads} * a.head_width();
  switch (part) {
    case Part::q:
    case Part::xq:
      return {d, inner};
    case Part::k:
    case Part::v:
    case Part::xk:
    case Part::xv:
      return {d, kv};
    case Part::o:
    case Part::xo:
      return {inner, d};
    case Part::gate:
    case Part::up:
      return {d, a.hidden};
    case Part::down:
      return {a.hidden, d};
    default:
      return {d, d};
  }
}

inline bool is_linear(Part part) {
  using enum Part;
  for (Part p : {q, k, v, o, xq, xk, xv, xo, gate, up, down})
    if (p == part) return true;
  return false;
}

// Whether a part belongs to attention across to an encoder, which one stack alone has.
inline bool is_across(Part part) {
  using enum Part;
  for (Part p : {xq, xk, xv, xo, cross, norm_x})
    if (p == part) return true;
  return false;
}

// How many of a stack's sites with this part are in the range of layers.
inline std::int64_t count_of(const Where& where, const Arch& stack, Part part) {
  if (is_across(part) && !stack.crosses()) return 0;
  if (part == Part::gate && !stack.gated) return 0;
  return where.count(stack.layers);
}

// Every linear of the blocks that an architecture has.
inline std::vector<Part> linear_parts(const Arch& a) {
  std::vector<Part> parts{Part::q, Part::k, Part::v, Part::o};
  if (a.crosses()) parts.insert(parts.end(), {Part::xq, Part::xk, Part::xv, Part::xo});
  if (a.gated) parts.push_back(Part::gate);
  parts.insert(parts.end(), {Part::up, Part::down});
  return parts;
}

// --- norms ---------------------------------------------------------------------------------------

inline constexpr Part kNorms[] = {Part::norm_embed, Part::norm1, Part::norm_x, Part::norm2,
                                  Part::norm_out};
inline bool is_norm(Part part) { return std::ranges::count(kNorms, part) > 0; }
inline std::int64_t norm_size(const Arch& a) { return a.width * (a.rms ? 1 : 2); }

// How many norms with this part a stack has in a range of layers. One outside the blocks counts as
// below the first or above the last.
inline std::int64_t norms_of(const Where& where, const Arch& a, Part part) {
  if (part == Part::norm_embed) return a.embed_norm && where.first == 0;
  if (part == Part::norm_out) return a.final_norm && where.last >= a.layers - 1;
  if (part == Part::norm_x && !a.crosses()) return 0;
  return where.count(a.layers);
}

// The norms that an architecture has.
inline std::vector<Part> norm_parts(const Arch& a) {
  std::vector<Part> parts;
  for (Part part : kNorms)
    for (const Arch& stack : a.stacks())
      if (norms_of({{}, 0, -1 + stack.layers}, stack, part) > 0 && !std::ranges::count(parts, part))
        parts.push_back(part);
  return parts;
}

}  // namespace graft
