// What the clauses of the contract share: a small adapted model, and the list of findings.
#pragma once

#include <optional>

#include "peft/contract.h"

namespace graft {

// One small model with a head and, unless left bare, an adaptation.
struct Trial {
  // The base is drawn with one seed, what the spec adds with another. Half precision: the base's
  // alone, as of a model that was loaded.
  Trial(const Methods&, const std::string& spec, Body, ArrayKind = {}, std::uint32_t seed = 7);

  void adapt(const Methods&, const std::string& spec);  // attached, and calibrated on the batch
  static void jitter(Parameter& p, double by);
  void jitter_all() {
    for (const auto& p : trained()) jitter(*p, 0.2);
  }
  Tensor scores();
  Tensor loss(bool train = false, std::uint32_t step = 1, Checkpoint = Checkpoint::none);
  Parameters trained() const { return adaptation->parameters(); }
  bool owns(const Parameter&);       // a copy that stands in a base parameter's place
  std::vector<std::string> names();  // of the base's parameters

  Model model;
  Batch batch;
  std::optional<Adaptation> adaptation;
};

// One spec on one body, and what was found.
struct Contract {
  const Methods& methods;
  std::string spec;
  Body kind;
  bool starts_as_base, mergeable;  // what the table's rows claim
  Device device;
  std::vector<Clause> findings;

  void add(std::string clause, bool kept, std::string detail = "") {
    findings.push_back({std::move(clause), kept, std::move(detail)});
  }
  Trial trial(Dtype dtype = Dtype::f32, std::uint32_t seed = 7) const {
    return {methods, spec, kind, {dtype, device}, seed};
  }
  Trial bare() const { return {methods, "", kind, {Dtype::f32, device}}; }

  void start();
  void switching(Trial& base, Trial& adapted);
  void count();
  void seeds();
  void files();
  void merging();
  bool spoilt(Trial&) const;
  // contract_training.cpp
  void gradients();
  void training();
  double loss_at_large_rate() const;
  void resuming();
  void checkpointing();
  void few_rows();
  void half_base();
  void in_half_precision();
  // contract_writing.cpp
  void writing();
  // contract_pairs.cpp
  void other_order();
};

}  // namespace graft
