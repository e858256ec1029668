// Figures as SVG, drawn by gnuplot; script and data stay beside each figure for others to redraw.
//
// What a paper reports is drawn in a panel of its own, with hollow markers and dashed lines, and is
// titled as the paper's: nothing measured here can be mistaken for it, nor the other way round.
#pragma once

#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "experiments/harness/stats.h"

namespace graft {

// One measured value; without an interval, a bare marker. A y of NaN leaves the place empty.
struct PlotPoint {
  double x = 0, y = 0;
  std::optional<Interval> interval;
};

struct Series {
  std::string name;
  std::vector<PlotPoint> points;
};

// A dashed horizontal line, with its interval as a pale band.
struct Baseline {
  std::string name;
  double y = 0;
  std::optional<Interval> interval;
};

struct Panel {
  std::string title, y_label;
  std::vector<Series> series;
  std::vector<Baseline> baselines;
};

// Lines over a number. Series of one name have one colour in both panels.
struct LinePlot {
  std::string x_label;
  bool log_x = false;
  Panel ours;
  std::optional<Panel> paper;
};

// Values for named groups; a point's x is the index of its group.
struct GroupPlot {
  std::string x_label;
  std::vector<std::string> groups;
  bool bars = true;  // bars from zero; otherwise markers, on an axis that fits the values
  Panel ours;
  std::optional<Panel> paper;
};

// cells[row][column], NaN for none; the first row is on top.
struct HeatMap {
  std::string title, x_label, y_label, scale_label;
  std::vector<std::string> columns, rows;
  std::vector<std::vector<double>> cells;
  int digits = 1;          // after the point, in the cells
  bool diverging = false;  // white at zero, two colours; otherwise pale to dark
};

// Writes STEM.svg, STEM.gp and STEM.dat (each in one step) and returns the SVG. In it, whatever is
// black takes the colour of the text around, and the background has the class "paper": the page
// shows the same figure light and dark. Throws when there is nothing to draw, x <= 0 on a log axis,
// or gnuplot is missing or fails.
std::string draw(const LinePlot& plot, const std::filesystem::path& stem);
std::string draw(const GroupPlot& plot, const std::filesystem::path& stem);
std::string draw(const HeatMap& map, const std::filesystem::path& stem);

}  // namespace graft
