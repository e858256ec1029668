#include "experiments/harness/page.h"

#include <algorithm>
#include <map>
#include <regex>

#include "experiments/harness/page_style.h"
#include "tensor/error.h"

namespace graft {
namespace {

std::string element(std::string_view tag, std::string_view kind, std::string_view text) {
  return fmt::format("<{0}{1}>{2}</{0}>\n", tag,
                     kind.empty() ? "" : fmt::format(" class=\"{}\"", kind), escape_html(text));
}

std::string verdict_of(const Finding& f) { return f.verdict ? name(*f.verdict) : "no verdict"; }

std::string badge(const Finding& f) {
  std::string kind = verdict_of(f);
  std::replace(kind.begin(), kind.end(), ' ', '-');
  return fmt::format("<span class=\"badge {}\">{}</span>", kind, verdict_of(f));
}

// Names in an SVG are the page's names once it is inlined: each figure gets its own. The drawing
// keeps its size where there is room, and scrolls rather than shrinks below what can be read.
std::string inlined(std::string svg, int figure) {
  svg.erase(0, svg.find("<svg"));
  std::smatch box;
  check(std::regex_search(svg, box, std::regex("viewBox=\"0 0 ([0-9]+) ([0-9]+)\"")),
        "page: figure {} is no SVG with a viewBox", figure);
  int width = std::stoi(box[1]);
  std::string prefix = fmt::format("f{}-", figure);
  svg = std::regex_replace(svg, std::regex("\\bid=(['\"])"), "id=$1" + prefix);
  svg = std::regex_replace(svg, std::regex("href=(['\"])#"), "href=$1#" + prefix);
  svg = std::regex_replace(svg, std::regex("url\\(#"), "url(#" + prefix);
  return svg.insert(4, fmt::format(" role=\"img\" style=\"max-width:{}px;min-width:{}px\"", width,
                                   width * 7 / 10));
}

bool starts_group(const std::vector<Column>& columns, std::size_t i) {
  return i > 0 && columns[i].group != columns[i - 1].group;
}

std::string cell_kind(const std::vector<Column>& columns, std::size_t i, std::string_view text) {
  std::string kind = columns[i].number ? "number" : "";
  if (starts_group(columns, i)) kind += " first";
  if (columns[i].number && text.ends_with('*')) kind += " choice";
  return kind;
}

std::string table_head(const Table& table) {
  std::string groups, names;
  bool grouped = false;
  for (std::size_t i = 0; i < table.columns.size(); ++i) {
    const Column& c = table.columns[i];
    names += fmt::format("<th scope=\"col\" class=\"{}\">{}</th>", cell_kind(table.columns, i, ""),
                         escape_html(c.name));
    if (i > 0 && !starts_group(table.columns, i)) continue;
    std::size_t end = i + 1;
    while (end < table.columns.size() && table.columns[end].group == c.group) ++end;
    groups +=
        fmt::format("<th scope=\"colgroup\" colspan=\"{}\" class=\"group{}{}\">{}</th>", end - i,
                    c.group.empty() ? " none" : "", i > 0 ? " first" : "", escape_html(c.group));
    grouped |= !c.group.empty();
  }
  return fmt::format("<thead>{}<tr>{}</tr></thead>\n", grouped ? "<tr>" + groups + "</tr>\n" : "",
                     names);
}

std::string table_html(const Table& table, const std::string& label) {
  // The caption stands outside, so that it does not scroll away with a wide table.
  std::string out = "<div class=\"block\">";
  if (!table.caption.empty())
    out += fmt::format("<p class=\"caption\">{}{}</p>\n", label, escape_html(table.caption));
  out += "<div class=\"scroll\"><table>";
  out += table_head(table) + "<tbody>\n";
  for (const auto& row : table.rows) {
    check(row.size() == table.columns.size(), "table \"{}\": a row of {} cells; need {}",
          table.caption, row.size(), table.columns.size());
    out += "<tr>";
    for (std::size_t i = 0; i < row.size(); ++i)
      out += fmt::format("<td class=\"{}\">{}</td>", cell_kind(table.columns, i, row[i]),
                         escape_html(row[i]));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></div>\n";
}

std::string p_value(double p) { return p < 0.001 ? "< 0.001" : fmt::format("{:.3f}", p); }

std::string claim_html(const Finding& f) {
  std::string out =
      fmt::format("<div class=\"claim\" id=\"{}\">{}", escape_html(f.claim.id), badge(f));
  out += fmt::format("<p><span class=\"id\">{}</span> {}</p>\n", escape_html(f.claim.id),
                     escape_html(f.claim.text));
  if (!f.claim.paper.empty()) out += element("p", "source", "Paper: " + f.claim.paper);
  Table readings{"", {{"", "", false}, {"measured", "", false}, {"claimed", "", false}}, {}};
  const bool tested = f.verdict && *f.verdict != Verdict::outside_regime && !is_counted(f.claim);
  if (tested) {
    readings.columns.push_back({"p, claim", "", true});
    readings.columns.push_back({"p, contrary", "", true});
  }
  for (const Reading& r : f.readings) {
    readings.rows.push_back({r.label, r.numbers, r.test});
    if (!tested) continue;
    readings.rows.back().push_back(p_value(r.p_held));
    readings.rows.back().push_back(p_value(r.p_not));
  }
  out += table_html(readings, "");
  return out + element("p", "reason", f.reason) + "</div>\n";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

Page::Page(std::string title) : title_(std::move(title)) {}

void Page::summary(const std::string& text) { summary_ += element("p", "", text); }

void Page::section(const std::string& heading) {
  sections_.push_back(heading);
  body_ += fmt::format("<h2 id=\"section-{}\">{}</h2>\n", sections_.size(), escape_html(heading));
}

void Page::heading(const std::string& text) { body_ += element("h3", "", text); }
void Page::paragraph(const std::string& text) { body_ += element("p", "", text); }
void Page::question(const std::string& text) { body_ += element("p", "question", text); }

void Page::facts(const std::string& heading, const Facts& facts) {
  if (!heading.empty()) body_ += element("h3", "", heading);
  body_ += "<dl>\n";
  for (const auto& [name, value] : facts)
    body_ += element("dt", "", name) + element("dd", "", value);
  body_ += "</dl>\n";
}

void Page::table(const Table& table) {
  body_ += table_html(table, fmt::format("<b>Table {}.</b> ", ++tables_));
}

void Page::figure(const std::string& svg, const std::string& caption) {
  ++figures_;
  body_ += fmt::format(
      "<figure><div class=\"scroll\">{}</div>\n<figcaption><b>Figure {}.</b> "
      "{}</figcaption></figure>\n",
      inlined(svg, figures_), figures_, escape_html(caption));
}

void Page::claims(std::span<const Finding> findings) {
  for (const Finding& f : findings) body_ += claim_html(f);
  findings_.insert(findings_.end(), findings.begin(), findings.end());
}

void Page::notes(std::span<const std::string> notes) {
  if (notes.empty()) return;
  body_ += "<h3>Notes</h3>\n<ul class=\"notes\">\n";
  for (const std::string& note : notes) body_ += element("li", "", note);
  body_ += "</ul>\n";
}

std::string Page::overview() const {
  if (findings_.empty()) return "";
  std::map<std::string, int> counts;
  std::vector<std::string> order;  // verdicts as they first come
  std::string rows;
  for (const Finding& f : findings_) {
    if (counts[verdict_of(f)]++ == 0) order.push_back(verdict_of(f));
    rows += fmt::format("<tr><td><a href=\"#{0}\">{0}</a></td><td>{1}</td><td>{2}</td></tr>\n",
                        escape_html(f.claim.id), escape_html(f.claim.text), badge(f));
  }
  std::string tally;
  for (const auto& verdict : order)
    tally += fmt::format("{}{} {}", tally.empty() ? "" : ", ", counts[verdict], verdict);
  return fmt::format(
      "<h3>The papers' claims: {}</h3>\n"
      "<div class=\"block scroll claims\"><table>"
      "<thead><tr><th>claim</th><th></th><th>verdict</th></tr></thead>\n"
      "<tbody>\n{}</tbody></table></div>\n",
      tally, rows);
}

std::string Page::html() const {
  std::string contents;
  for (std::size_t i = 0; i < sections_.size(); ++i)
    contents +=
        fmt::format("<li><a href=\"#section-{}\">{}</a></li>\n", i + 1, escape_html(sections_[i]));
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n{2}{3}{4}{5}"
      "</body>\n</html>\n",
      escape_html(title_), kPageStyle, summary_,
      contents.empty() ? "" : "<nav><ul>\n" + contents + "</ul></nav>\n", overview(), body_);
}

}  // namespace graft
