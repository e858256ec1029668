// A method and its options as text: `lora:r=8,alpha=16,on=q+v,layers=4-11`. Several compose with |.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "nn/modules.h"

namespace graft {

// The options of one method. Reading one marks it as known; finish() refuses what nobody read.
class Options {
 public:
  Options() = default;
  Options(std::string method, std::map<std::string, std::string> given)
      : method_(std::move(method)), given_(std::move(given)) {}

  const std::string& method() const { return method_; }
  bool has(const std::string& key) const { return given_.contains(key); }
  std::string text(const std::string& key, const std::string& standard);
  // One of the choices; throws, listing them.
  std::string choice(const std::string& key, const std::string& standard,
                     const std::vector<std::string>& choices);
  bool flag(const std::string& key, bool standard);  // yes or no
  int integer(const std::string& key, int standard, int least = 1);
  double real(const std::string& key, double standard);
  // `on=` and `layers=`; the layers are checked against the model.
  Where where(const std::string& on, const Arch&);
  Where layers(const Arch&);

  void finish() const;  // throws for a key that was not read, listing those that were
  std::string to_string() const;

 private:
  std::string method_;
  std::map<std::string, std::string> given_;
  std::set<std::string> known_;
};

// Splits `a:k=v,k=v|b` into its methods. Throws where the text is malformed or a key comes twice.
std::vector<Options> parse_spec(std::string_view text);

}  // namespace graft
