// Bottleneck adapters in the folders of AdapterHub's library: adapter_config.json and
// adapter.safetensors, under the names that its modules have. Its torch pickles are refused.
//
//   AdapterHub                                             here
//   original_ln_before off (Houlsby's)                     houlsby:norms=no
//   original_ln_before on, residual_before_ln (Pfeiffer's) pfeiffer
//   is_parallel                                            parallel:place=residual
//   reduction_factor, one or by layer; leave_out           m=, layers=; m is width over factor
//   mh_adapter, output_adapter, cross_adapter              on=attn+mlp+cross
//   non_linearity, scaling, dropout, ln_after              f=, s=, dropout=, norm=after
//
// Heads lie in files of their own there, which are neither read nor written.
#pragma once

#include "peft/peft_folder.h"

namespace graft {

// Whether adapter_config.json is one of AdapterHub's.
bool is_adapterhub_folder(const std::filesystem::path&);
// Whether every method of a spec is a bottleneck adapter that such a folder may hold.
bool is_for_adapterhub(const std::string& spec);

// Throws one Error that lists all that does not fit, as for PEFT's folders.
PeftAdapter read_adapterhub_folder(const std::filesystem::path&, const Arch&);

// Writes a folder that load_adapter opens on the base; throws Error, and writes nothing, where
// AdapterHub cannot say what the adapter is. Returns what a user should know.
std::vector<std::string> write_adapterhub_folder(const std::filesystem::path&, const PeftSource&);

// --- for both ways -------------------------------------------------------------------------------

// A place where AdapterHub has adapters: its module, without the adapter's name.
struct HubPlace {
  Site site;
  int index = 0;       // of the layer, an encoder's counted before the decoder's
  std::string module;  // "bert.encoder.layer.0.output.adapters"
};
// Of these sub-layers. Throws for a family that AdapterHub does not know.
std::vector<HubPlace> hub_places(const Arch&, const std::vector<Part>&);

// A tensor of an adapter of width m: what it is called there and here.
struct HubTensor {
  std::string there, here;
  Shape shape;
};
std::vector<HubTensor> hub_tensors(int width, int m, bool norm_after, bool learned);

// Bottleneck widths as AdapterHub computes them: floor(width / factor), 1 at least.
int hub_width(int width, double factor);

}  // namespace graft
