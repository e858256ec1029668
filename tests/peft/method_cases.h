// What the tests of methods share: the contract on a spec, and what attaching a wrong one says.
#pragma once

#include <doctest/doctest.h>

#include "nn/models/presets.h"
#include "peft/contract.h"
#include "peft/methods.h"
#include "peft/trainable.h"
#include "tests/nn/folder.h"
#include "tests/nn/small_models.h"

namespace graft::testing {

inline void keeps_contract_on(const std::string& spec, Body body) {
  const Threads one(1);
  const auto clauses = run_contract(all_methods(), spec, body);
  CHECK(clauses.size() >= 10);
  for (const Clause& c : clauses) {
    CAPTURE(spec);
    CAPTURE(std::string(name(body)));
    CAPTURE(c.text);
    CAPTURE(c.detail);
    CHECK(c.kept);
  }
}

#ifdef GRAFT_SANITIZED
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

// On every body. Under the sanitizers each run takes long and is there to find errors of memory:
// one body then, by turns; the table's own examples meet all of them all the same (methods_test).
inline void keeps_contract(const std::string& spec) {
  static std::size_t turn = 0;
  for (std::size_t i = 0; i < std::size(kBodies); ++i)
    if (!kSanitized || i == turn % std::size(kBodies)) keeps_contract_on(spec, kBodies[i]);
  ++turn;
}

// What attaching a spec says.
inline std::string refusal(const std::string& spec, const Arch& arch = small_arch(Stack::encoder)) {
  Model model(arch, {});
  const std::uint64_t before = model.hash();
  const std::string message = error_of([&] { Adaptation(all_methods(), spec, model); });
  CHECK(model.hash() == before);
  return message;
}

struct Counted {
  std::int64_t trains, all;
};

// From shapes alone, as `graft count` does.
inline Counted counted(const Arch& arch, const std::string& spec) {
  Model model(arch, {.storage = false});
  const Adaptation adaptation(all_methods(), spec, model);
  CHECK(adaptation.count() == adaptation.formula());
  const TrainableCount n = count_trainable(model, adaptation);
  return {n.trainable, n.all};
}
inline Counted counted(const std::string& arch, const std::string& spec) {
  return counted(arch_named(arch), spec);
}

// Merging what a spec attaches says why it cannot be, and changes no bit.
inline void refuses_to_merge(const std::string& spec, const Arch& arch, const std::string& why) {
  SmallModel model(arch);
  Adaptation adaptation(all_methods(), spec, model);
  for (const auto& p : adaptation.parameters()) add_noise(*p, 0.2, 3);
  const Batch batch = ragged(arch, {5, 3});
  const Array before = rows_of(model, batch).value();
  contains(error_of([&] { adaptation.merge(); }), why);
  CHECK(same_bits(before, rows_of(model, batch).value()));
  for (const auto& a : adaptation.adapters()) CHECK_FALSE(a->merged());
}

inline void jitter(const Parameters& parameters) {
  for (const auto& p : parameters) add_noise(*p, 0.2, 3);
}

}  // namespace graft::testing
