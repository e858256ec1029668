// Site: the address of a slot or a parameter inside a model. Prints as `encoder 3 q`.
#pragma once

#include <compare>
#include <string>
#include <string_view>
#include <vector>

namespace graft {

enum class Stack { encoder, decoder };
// Parts outside the blocks (embed, norm_out, head) have layer -1. x*: cross-attention.
enum class Part {
  embed,
  position,
  norm_embed,
  norm1,
  q,
  k,
  v,
  o,
  attn,
  norm_x,
  xq,
  xk,
  xv,
  xo,
  cross,
  norm2,
  gate,
  up,
  down,
  mlp,
  block,
  norm_out,
  pooler,
  lm_dense,
  lm_norm,
  lm_head,
  head_dense,
  head
};

struct Site {
  Stack stack = Stack::encoder;
  int layer = -1;
  Part part = Part::embed;
  auto operator<=>(const Site&) const = default;
};

const char* name(Part);
const char* name(Stack);
std::string to_string(const Site&);
Part part_named(std::string_view);  // throws, listing the names

// Which sites a method edits: parts, and a range of layers (inclusive; last -1 = to the end).
// Written as `on=q+v,layers=4-11`.
struct Where {
  std::vector<Part> parts;
  int first = 0, last = -1;
  bool has(Part part) const;
  bool has(const Site& site, int layers) const;
  int count(int layers) const;  // how many of a stack's layers are in the range
};
std::string to_string(const std::vector<Part>&);       // q+v
std::vector<Part> parts_named(std::string_view text);  // "q+v"; throws on unknown or repeated
// The layers of an encoder-decoder are counted in each of its stacks.
// "all", "4-11", "7", or "top3" as a range. Throws where it does not lie in 0..layers-1.
void parse_layers(std::string_view text, int layers, Where&);

}  // namespace graft
