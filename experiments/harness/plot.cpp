#include "experiments/harness/plot.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "experiments/harness/gnuplot.h"
#include "tensor/error.h"

namespace graft {
namespace {

// Colours that stand apart on light and dark ground and for the colour-blind (after Okabe and Ito).
constexpr const char* kColours[] = {"#0077bb", "#d55e00", "#009e73", "#cc79a7",
                                    "#d99a00", "#33a9dd", "#8c6bb1", "#8f8f2e"};
constexpr int kMarkers[] = {7, 5, 9, 13, 11, 15, 7, 5};  // filled; one less is the hollow one
constexpr int kStyles = 8;
constexpr const char* kGrey = "#808080";
constexpr int kHeight = 380, kKeyRow = 20,
              kLabels = 84;  // pixels: without the key; a line of it; below the axes

// A script under way; data blocks are addressed by number.
struct Script {
  std::string text, data;
  int blocks = 0;

  template <class... Args>
  void line(fmt::format_string<Args...> format, Args&&... args) {
    text += fmt::format(format, std::forward<Args>(args)...) + "\n";
  }
  int block(const std::string& comment, const std::string& rows) {
    std::string header = comment;
    std::replace(header.begin(), header.end(), '\n', ' ');
    data += "# " + header + "\n" + rows + "\n\n";
    return blocks++;
  }
};

// Not fmt::join: gcc 12 warns of an overflow inside it that cannot happen.
std::string joined(const std::vector<std::string>& parts, std::string_view separator) {
  std::string all;
  for (const auto& part : parts) {
    if (!all.empty()) all += separator;
    all += part;
  }
  return all;
}

// One panel among its figure: where it stands and how its series look.
struct Frame {
  const Panel& panel;
  bool is_paper;
  std::vector<int> style;  // of each series
};

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -low;

  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  Range padded(double share) const {
    double room = high > low ? share * (high - low) : std::max(1e-3, 0.1 * std::abs(high));
    Range wide = *this;
    wide.low -= room;
    wide.high += room;
    return wide;
  }
};

Range y_range(const Panel& panel) {
  Range range;
  auto add = [&](double y, const std::optional<Interval>& interval) {
    range.add(y);
    if (interval) range.add(interval->low), range.add(interval->high);
  };
  for (const Series& s : panel.series)
    for (const PlotPoint& p : s.points) add(p.y, p.interval);
  for (const Baseline& b : panel.baselines) add(b.y, b.interval);
  check(range.low <= range.high, "plot: panel \"{}\" has nothing to draw", panel.title);
  return range;
}

// The paper's series take the style of ours of the same name; other names take the next styles.
std::vector<Frame> frames(const Panel& ours, const std::optional<Panel>& paper) {
  std::vector<std::string> names;
  auto style = [&](const Panel& panel) {
    std::vector<int> styles;
    for (const Series& s : panel.series) {
      auto found = std::find(names.begin(), names.end(), s.name);
      styles.push_back(static_cast<int>(found - names.begin()) % kStyles);
      if (found == names.end()) names.push_back(s.name);
    }
    return styles;
  };
  std::vector<Frame> all = {{ours, false, style(ours)}};
  if (paper) all.push_back({*paper, true, style(*paper)});
  return all;
}

// 0: one series that says what the title says needs no key.
std::size_t key_rows(const std::vector<Frame>& frames) {
  std::size_t rows = 0;
  for (const Frame& f : frames) {
    const std::size_t own = f.panel.series.size() + f.panel.baselines.size();
    if (own == 1 && f.panel.baselines.empty() && f.panel.series[0].name == f.panel.title) continue;
    rows = std::max(rows, own);
  }
  return rows;
}

std::string rows_of(const Series& series, const std::vector<double>& x) {
  std::string rows = "# x y low high\n";
  for (std::size_t i = 0; i < series.points.size(); ++i) {
    const PlotPoint& p = series.points[i];
    if (!std::isfinite(p.y)) continue;
    Interval interval = p.interval.value_or(Interval{p.y, p.y});
    rows +=
        fmt::format("{:.10g} {:.10g} {:.10g} {:.10g}\n", x[i], p.y, interval.low, interval.high);
  }
  // A block without rows would shift the numbers of all that follow.
  return rows.find('\n') + 1 == rows.size() ? rows + "NaN NaN NaN NaN\n" : rows;
}

// The frame shared by all panels of a figure: places, axes, grid, key below the axes.
void open_figure(Script& script, std::size_t panels, std::size_t rows, int height) {
  script.line("set multiplot layout 1,{}", panels);
  script.line("set border 3 lw 0.8\nset tics nomirror out scale 0.6");
  script.line("set grid ytics lc rgb '{}' lw 0.4 dt 3", kGrey);
  script.line("set style fill solid 0.85 noborder\nset errorbars small");
  if (rows > 0)
    script.line("set key below vertical left Left reverse maxcols 1 samplen 3");
  else
    script.line("unset key");
  script.line("set bmargin screen {:.4f}",
              (kKeyRow * static_cast<double>(rows) + kLabels) / height);
  script.line("set tmargin screen {:.4f}\nset pointintervalbox 0", 1 - 40.0 / height);
}

void open_panel(Script& script, const Panel& panel, const Range& y) {
  script.line("set title {} offset 0,-0.3\nset ylabel {}", gnuplot_string(panel.title),
              gnuplot_string(panel.y_label));
  script.line("set yrange [{:.10g}:{:.10g}]\nunset object", y.low, y.high);
  for (const Baseline& b : panel.baselines)
    if (b.interval)
      script.line(
          "set object rectangle from graph 0, first {:.10g} to graph 1, first {:.10g} behind "
          "fc rgb '{}' fs transparent solid 0.15 noborder",
          b.interval->low, b.interval->high, kGrey);
}

void close_panel(Script& script, std::vector<std::string> plots, const Panel& panel) {
  int dash = 2;
  for (const Baseline& b : panel.baselines)
    plots.push_back(fmt::format("{:.10g} with lines lc rgb '{}' lw 1.6 dt {} title {}", b.y, kGrey,
                                dash++, gnuplot_string(b.name)));
  script.line("plot {}", joined(plots, ", \\\n     "));
}

int width_of(std::size_t panels) { return panels == 1 ? 640 : 900; }
int height_of(std::size_t rows) { return kHeight + kKeyRow * static_cast<int>(rows); }

std::string finish(Script& script, const std::filesystem::path& stem, const std::string& title,
                   int width, int height) {
  script.line("unset multiplot");
  return run_gnuplot(stem, title, width, height, script.text, script.data);
}

// Where labelled ticks stand: at the values themselves if few and apart, else gnuplot's own.
std::string ticks(const Range& wide, const std::set<double>& at, bool log_x) {
  auto place = [&](double v) { return log_x ? std::log10(v) : v; };
  double span = place(wide.high) - place(wide.low), before = -1e300;
  std::vector<std::string> labels;
  bool powers = log_x && wide.low < 1e-3;  // 0.01 beside 10⁻⁴ would read badly
  for (double v : at) {
    if (place(v) - before < 0.055 * span) return {};
    before = place(v);
    labels.push_back(fmt::format("{} {:.10g}", gnuplot_string(tick_label(v, powers)), v));
  }
  return fmt::format("set xtics ({})\n", joined(labels, ", "));
}

std::string decades(const Range& wide) {
  std::vector<std::string> labels;
  bool powers = wide.low < 1e-3;
  for (double e = std::ceil(std::log10(wide.low)); e <= std::floor(std::log10(wide.high)); ++e)
    labels.push_back(
        fmt::format("{} 1e{}", gnuplot_string(tick_label(std::pow(10.0, e), powers)), e));
  return fmt::format("set xtics ({})\n", joined(labels, ", "));
}

void set_x_axis(Script& script, const Panel& panel, bool log_x) {
  std::set<double> at;
  for (const Series& s : panel.series)
    for (const PlotPoint& p : s.points) {
      check(!log_x || p.x > 0, "plot: {}: x is {} on a logarithmic axis", s.name, p.x);
      at.insert(p.x);
    }
  check(!at.empty(), "plot: panel \"{}\" has no points", panel.title);
  Range wide{*at.begin(), *at.rbegin()};
  if (log_x) {
    double room = std::pow(std::max(wide.high / wide.low, 2.0), 0.05);
    wide = {wide.low / room, wide.high * room};
  } else {
    wide = wide.padded(0.05);
  }
  script.line("{} logscale x\nset xrange [{:.10g}:{:.10g}]", log_x ? "set" : "unset", wide.low,
              wide.high);
  std::string exact = at.size() <= 12 ? ticks(wide, at, log_x) : "";
  script.text += !exact.empty() ? exact : log_x ? decades(wide) : "set xtics autofreq\n";
}

// Moves each series aside a little, so that error bars at one x do not hide one another.
std::vector<double> dodged(const Series& series, const Panel& panel, std::size_t index,
                           bool log_x) {
  Range all;
  for (const Series& s : panel.series)
    for (const PlotPoint& p : s.points) all.add(log_x ? std::log(p.x) : p.x);
  double step = 0.011 * (all.high - all.low);
  double by = step * (static_cast<double>(index) - (panel.series.size() - 1) / 2.0);
  std::vector<double> x;
  for (const PlotPoint& p : series.points) x.push_back(log_x ? p.x * std::exp(by) : p.x + by);
  return x;
}

std::string owner(const Frame& frame) { return frame.is_paper ? "the paper's: " : "this run: "; }

std::vector<std::string> line_plots(Script& script, const Frame& frame, bool log_x) {
  std::vector<std::string> plots;
  for (std::size_t i = 0; i < frame.panel.series.size(); ++i) {
    const Series& s = frame.panel.series[i];
    auto style = static_cast<std::size_t>(frame.style[i]);
    int block = script.block(owner(frame) + s.name, rows_of(s, dodged(s, frame.panel, i, log_x)));
    std::string columns = frame.is_paper ? "1:2 with linespoints" : "1:2:3:4 with yerrorlines";
    plots.push_back(
        fmt::format("data index {} using {} lc rgb '{}' lw 1.5 pt {} ps {} dt {} title {}", block,
                    columns, kColours[style], kMarkers[style] - (frame.is_paper ? 1 : 0), 0.8,
                    frame.is_paper ? "2" : "solid", gnuplot_string(s.name)));
  }
  return plots;
}

std::vector<std::string> group_plots(Script& script, const Frame& frame, bool bars) {
  std::vector<std::string> plots;
  double count = static_cast<double>(frame.panel.series.size()), width = 0.8 / count;
  for (std::size_t i = 0; i < frame.panel.series.size(); ++i) {
    const Series& s = frame.panel.series[i];
    auto style = static_cast<std::size_t>(frame.style[i]);
    std::vector<double> x;
    for (const PlotPoint& p : s.points)
      x.push_back(p.x + width * (static_cast<double>(i) - (count - 1) / 2));
    int block = script.block(owner(frame) + s.name, rows_of(s, x));
    std::string shape =
        bars ? fmt::format("1:2:({:.4f}) with boxes {}", 0.92 * width,
                           frame.is_paper ? "fs solid 0.25 border lw 1.4" : "")
             : fmt::format("1:2 with points ps 0.9 pt {}", kMarkers[style] - frame.is_paper);
    plots.push_back(fmt::format("data index {} using {} lc rgb '{}' title {}", block, shape,
                                kColours[style], gnuplot_string(s.name)));
    // Not yerrorbars: these leave a white halo around a marker that is not drawn.
    plots.push_back(
        fmt::format("data index {} using 1:3:(0):($4-$3) with vectors nohead lw 1.5 lc {} notitle",
                    block, bars ? "black" : fmt::format("rgb '{}'", kColours[style])));
  }
  return plots;
}

Range heat_range(const HeatMap& map) {
  Range range;
  for (const auto& row : map.cells)
    for (double v : row) range.add(v);
  check(range.low <= range.high && map.cells.size() == map.rows.size(),
        "plot: heat map \"{}\" has {} rows of cells and {} names, or nothing to draw", map.title,
        map.cells.size(), map.rows.size());
  if (map.diverging) range.add(-range.low), range.add(-range.high);
  return range.low == range.high ? range.padded(0.1) : range;
}

// One line for each cell, with its number as text in a colour that stands out from the cell's own.
std::string heat_cells(const HeatMap& map, const Range& range) {
  std::string cells = "# column row value text text-colour\n";
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    check(map.cells[r].size() == map.columns.size(),
          "plot: heat map \"{}\": row {} has {} cells; need {}", map.title, r, map.cells[r].size(),
          map.columns.size());
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      double v = map.cells[r][c], share = (v - range.low) / (range.high - range.low);
      if (!std::isfinite(v)) continue;
      bool dark = map.diverging ? std::abs(share - 0.5) > 0.34 : share > 0.6;
      cells += fmt::format("{} {} {:.10g} {:.{}f} {}\n", c, r, v, v, map.digits,
                           dark ? 0xfefefe : 0x111111);
    }
  }
  return cells;
}

std::string numbered(const std::vector<std::string>& names) {
  std::vector<std::string> labels;
  for (std::size_t i = 0; i < names.size(); ++i)
    labels.push_back(fmt::format("{} {}", gnuplot_string(names[i]), i));
  return joined(labels, ", ");
}

constexpr const char* kPaleToDark =
    "0 '#f4f8fc', 0.25 '#c3daee', 0.5 '#7fb2d9', 0.75 '#3379b5', 1 '#0b3566'";
constexpr const char* kTwoSided =
    "0 '#b2381e', 0.25 '#f0a582', 0.5 '#f7f7f7', 0.75 '#92c5de', 1 '#1f66a8'";

}  // namespace

std::string draw(const LinePlot& plot, const std::filesystem::path& stem) {
  Script script;
  auto all = frames(plot.ours, plot.paper);
  int height = height_of(key_rows(all));
  open_figure(script, all.size(), key_rows(all), height);
  script.line("set xlabel {} offset 0,0.4", gnuplot_string(plot.x_label));
  for (const Frame& frame : all) {
    open_panel(script, frame.panel, y_range(frame.panel).padded(0.08));
    set_x_axis(script, frame.panel, plot.log_x);
    close_panel(script, line_plots(script, frame, plot.log_x), frame.panel);
  }
  return finish(script, stem, plot.ours.title, width_of(all.size()), height);
}

std::string draw(const GroupPlot& plot, const std::filesystem::path& stem) {
  Script script;
  auto all = frames(plot.ours, plot.paper);
  std::size_t longest = 0;
  std::vector<std::string> labels;
  for (std::size_t g = 0; g < plot.groups.size(); ++g) {
    labels.push_back(fmt::format("{} {}", gnuplot_string(plot.groups[g]), g));
    longest = std::max(longest, plot.groups[g].size());
  }
  // Labels that would touch are slanted, and the axes make room for them.
  double slot = (width_of(all.size()) / static_cast<double>(all.size()) - 110) /
                static_cast<double>(plot.groups.size());
  bool slanted = 7.5 * static_cast<double>(longest) + 6 > slot;
  int height = height_of(key_rows(all)) + (slanted ? static_cast<int>(longest) * 5 : 0);
  open_figure(script, all.size(), key_rows(all), height);
  if (slanted) script.line("set bmargin screen {:.4f}", 1 - (kHeight - kLabels + 0.0) / height);
  script.line("set xlabel {} offset 0,0.4\nset xrange [-0.6:{}]", gnuplot_string(plot.x_label),
              plot.groups.size() - 0.4);
  script.line("set xtics ({}) {} scale 0", joined(labels, ", "),
              slanted ? "rotate by -35" : "norotate");
  if (plot.bars) script.line("set xzeroaxis lt -1 lw 0.8");
  for (const Frame& frame : all) {
    Range y = y_range(frame.panel);
    if (plot.bars) y.add(0);
    Range wide = y.padded(0.08);
    if (plot.bars && y.low == 0) wide.low = 0;
    if (plot.bars && y.high == 0) wide.high = 0;
    open_panel(script, frame.panel, wide);
    close_panel(script, group_plots(script, frame, plot.bars), frame.panel);
  }
  return finish(script, stem, plot.ours.title, width_of(all.size()), height);
}

std::string draw(const HeatMap& map, const std::filesystem::path& stem) {
  Range range = heat_range(map);
  Script script;
  int block = script.block(map.title, heat_cells(map, range));
  script.line("set title {}\nset xlabel {}\nset ylabel {}\nset cblabel {}",
              gnuplot_string(map.title), gnuplot_string(map.x_label), gnuplot_string(map.y_label),
              gnuplot_string(map.scale_label));
  script.line("unset key\nunset border\nset tics scale 0\nset xtics ({})\nset ytics ({})",
              numbered(map.columns), numbered(map.rows));
  script.line("set xrange [-0.5:{}]\nset yrange [{}:-0.5]", map.columns.size() - 0.5,
              map.rows.size() - 0.5);
  script.line("set palette defined ({})", map.diverging ? kTwoSided : kPaleToDark);
  script.line("set cbrange [{:.10g}:{:.10g}]\nset rmargin screen 0.83", range.low, range.high);
  script.line("set colorbox user origin screen 0.87,0.2 size screen 0.025,0.6");
  script.line("set style fill solid 1 noborder");
  script.line(
      "plot data index {0} using 1:2:(0.485):(0.485):3 with boxxyerror lc palette, \\\n"
      "     data index {0} using 1:2:(stringcolumn(4)):5 with labels font ',12' tc rgb variable",
      block);
  int width = std::clamp(static_cast<int>(map.columns.size()) * 46 + 230, 420, 1000);
  int height = std::clamp(static_cast<int>(map.rows.size()) * 32 + 130, 260, 1000);
  return run_gnuplot(stem, map.title, width, height, script.text, script.data);
}

}  // namespace graft
