// What the papers' bottleneck adapters have in common. Beside a module with output y stands
//
//     u = s (W_up f(W_down z + b_down) + b_up),   W_down [m, in], W_up [out, m],   y' = y + u.
//
// A paper is a choice of z, f, s and the start; its file holds that choice and no code of its own.
//
//   place=      z                                                    on sub-layers   on linears
//   serial      y, the module's output                                    x              x
//   parallel    what the module reads                                     x              x
//   residual    the residual stream beside the sub-layer                  x
//   joined      y + the residual stream, through the sub-layer's          x
//               norm where the family has it there (post-norm)
//   before      what the linear reads; u joins there: y' = y + W u                       x
//
// In a post-norm model parallel and residual are one. norm=after sets a layer norm around u,
// norm=before around z; gamma= is what its gain starts at.
#pragma once

#include "peft/adapter.h"

namespace graft {

// A paper's standard options.
struct BottleneckForm {
  const char* method;
  const char* on = "mlp";
  int m = 64;         // or, above 0:
  int reduction = 0;  // m is the width over that
  const char* place = "serial";
  const char* f = "gelu";
  const char* init = "truncated";
  double s = 1;
  bool bias = true, norms = false;
  bool linears = false;  // whether it goes on single linears, too
};

struct BottleneckOptions {
  enum class Place { serial, parallel, residual, joined, before };
  enum class Start { truncated, normal, mam };
  enum class Norms { none, before, after };

  BottleneckOptions(Options&, const Arch&, const BottleneckForm&);

  Where where;
  int m;
  Map f;
  Place place;
  Start start;
  double std;
  bool learned;  // s trains, from 1
  double s, dropout_rate;
  Norms norm;
  bool gamma;  // the inner norm's gain starts at 1, not at 0
  bool bias, norms;
};

// `f=`: gelu, relu and the others.
Map map_named(Options&, const char* standard);

std::unique_ptr<Adapter> make_bottleneck(Options&, const Arch&, const BottleneckForm&);

// The rows.
extern const BottleneckForm kHoulsby, kPfeiffer, kParallel, kSeries;

}  // namespace graft
