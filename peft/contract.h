// The method contract: what every row of the table of methods must keep, tried on small models.
// `graft check SPEC` and the tests run it; a method of one's own can be put through it alike.
#pragma once

#include <string>
#include <vector>

#include "peft/adapter.h"

namespace graft {

struct Clause {
  std::string text;  // "every edit fired"
  bool kept = false;
  std::string detail;  // figures, or why the clause does not apply
};

// Small random models that every method fits: 3 layers, width 12.
enum class Body { encoder, decoder, both };
inline constexpr Body kBodies[] = {Body::encoder, Body::decoder, Body::both};
const char* name(Body);
Arch contract_arch(Body);
// All clauses for one spec. `starts_as_base` and `mergeable` are what the table's rows claim.
std::vector<Clause> run_contract(const Methods&, const std::string& spec, Body,
                                 Device = Device::cpu);
std::string text_of(const std::vector<Clause>&);
bool all_kept(const std::vector<Clause>&);

// What two methods are in one spec, in this order.
struct PairResult {
  std::string spec;
  enum Kind { composes, refused, broken } kind = composes;
  std::string detail;  // whether it merges; why it was refused; what is wrong
};

// A body to try pairs on, a few milliseconds each: both act, the gradients of both are right, they
// merge or say why not, their values can be put back, and taken off they leave the base. Or
// attaching says why they do not go together.
class PairBody {
 public:
  PairBody(const Methods&, Body);
  ~PairBody();
  PairResult check(const std::string& first, const std::string& second);

 private:
  void composes(const std::string& spec, std::string& detail);

  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace graft
