// One self-contained HTML page of results: no script, no outside file, light and dark, phone and
// paper. Every text is escaped; figures are inlined.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "experiments/harness/tables.h"
#include "experiments/harness/verdict.h"

namespace graft {

using Facts = std::vector<std::pair<std::string, std::string>>;  // name, value

// Parts appear in the order of the calls. The verdicts of all claims are gathered at the top.
class Page {
 public:
  explicit Page(std::string title);

  void summary(const std::string& text);     // under the title, before the verdicts
  void section(const std::string& heading);  // a new experiment; listed in the contents
  void heading(const std::string& text);     // within a section
  void paragraph(const std::string& text);
  void question(const std::string& text);                      // what the experiment asks
  void facts(const std::string& heading, const Facts& facts);  // set-up, environment
  void table(const Table& table);
  void figure(const std::string& svg, const std::string& caption);  // as draw() returns it
  void claims(std::span<const Finding> findings);
  void notes(std::span<const std::string> notes);

  std::string html() const;

 private:
  std::string overview() const;

  std::string title_, summary_, body_;
  std::vector<std::string> sections_;
  std::vector<Finding> findings_;
  int figures_ = 0, tables_ = 0;
};

std::string escape_html(std::string_view text);

}  // namespace graft
