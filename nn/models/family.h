// The model families that Hugging Face folders hold: how the names in their files belong to Arch
// and Site. One Family is one table; model files and folders of adapters both read it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "nn/head.h"

namespace graft {

class ConfigKeys;

// Where a family's files keep one parameter.
struct Place {
  std::string module;         // "transformer.h.3.attn.c_attn"
  std::string tensor;         // "weight"
  bool transposed = false;    // a matrix lies there as [in, out], as GPT-2's Conv1D has it
  int piece = 0, pieces = 1;  // q, k and v of GPT-2 are pieces of one tensor, joined along `out`
  std::string name() const { return module + "." + tensor; }
};

// One line of a family's table: the module at a site. `{}` stands for the layer.
struct ModuleName {
  Part part;
  int layer;  // 0 for the sites in blocks, else as in Site
  std::string module;
  bool transposed = false;
  int piece = 0, pieces = 1;
  // A parameter that has this name here (and "weight" or "bias" there) has the line to itself.
  std::string parameter = {}, tensor = {};
  // The line counts only where this switch of Arch is on; it comes before the line that always
  // does.
  bool Arch::*where = nullptr;
};

// A tensor that files may hold though the model does not need it. `{}` stands for the layer.
struct ExtraName {
  std::string name;
  std::string copy_of = {};  // it must have that tensor's bytes, where the family's head is tied
  // What opens our folders would miss it: we write these values, in f32; none where undefined.
  Array (*values)(const Arch&) = nullptr;
};

// The family's own head for whole texts, as transformers computes it.
struct FamilyHead {
  std::string architecture = {};    // the class that opens folders that have it; empty: none
  HeadForm form = {};               // without its rates of dropout
  double Arch::*dropout = nullptr;  // their one rate, where it has any
};

struct Family {
  std::string name;                  // config.json's model_type
  std::string architecture;          // the class that opens our folders
  std::string body;                  // and the one that opens those without a vocabulary head
  std::string prefix;                // left out of the names where only the base model was saved
  Arch arch;                         // the family's switches; the sizes are in config.json
  void (*keys)(ConfigKeys&, Arch&);  // config.json's keys; see config.h
  std::vector<ModuleName> modules;
  std::vector<ExtraName> extras;
  std::vector<ModuleName> encoder = {};  // of an encoder-decoder, whose decoder's are in modules
  FamilyHead head = {};
  bool has(Part) const;  // whether the table has a line for it
};

const std::vector<Family>& families();
const Family& family_named(std::string_view model_type);  // throws, listing the names

// Where the family of `arch` keeps a parameter of a module. A parameter that no table names, such
// as an edit's "u.weight", keeps its name: module "...query", tensor "u.weight".
// Throws where the family has nothing at the site.
Place place_of(const Arch& arch, const Site& site, const std::string& parameter);

// place_of(...).name(): "roberta_prelayernorm.encoder.layer.3.attention.self.query.weight".
std::string hf_name(const Arch& arch, const Site& site, const std::string& parameter);

}  // namespace graft
