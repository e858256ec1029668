// What a spec of LoRA says: read by the method (lora.cpp) and by PEFT's folders (peft_lora.cpp).
#pragma once

#include <optional>

#include "peft/spec.h"

namespace graft {

struct LoraOptions {
  enum class Biases { none, all, lora_only };

  LoraOptions(Options&, const Arch&);
  int rank(const Site&) const;
  double alpha(const Site&) const;
  double scale(const Site&) const;  // what B A is multiplied by
  // Where the A lies that a matrix reads: its own site, or that of the first among q, k and v.
  Site a_site(const Site&) const;
  // How many numbers `save` and `biases` train.
  std::int64_t saved(const Arch&) const;

  Where where;         // of linears
  bool embed = false;  // the tokens' embedding, too, whatever the layers
  double dropout_rate;
  bool kaiming, rank_stabilised;
  bool shared;  // share=qkv
  Biases biases;
  std::vector<Part> save;  // base modules that train whole

 private:
  // `ranks=v:8;q.0-3:4`: of the entries that match a site the last counts.
  struct Entry {
    Where where;
    double number;
  };
  std::vector<Entry> entries(Options&, const char* key) const;
  std::vector<Part> parts_to_save(Options&, const Arch&) const;
  void check_shared() const;

  int r_;
  std::optional<double> alpha_;  // else as the rank
  int layers_;
  std::vector<Entry> ranks_, alphas_;
};

}  // namespace graft
