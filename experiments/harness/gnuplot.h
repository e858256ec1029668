// Running gnuplot: a script and its data become an SVG, with both kept beside it.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace graft {

// A quoted gnuplot string that prints as given; line breaks become spaces.
std::string gnuplot_string(std::string_view text);

// A number as a label: "64", "0.5", "10⁻⁷", "3·10⁻⁴"; with `powers`, also "10⁻²" for 0.01.
std::string tick_label(double v, bool powers = false);

// Writes STEM.gp and STEM.dat, runs `gnuplot STEM.gp > STEM.svg` in their folder and returns the
// SVG, made fit for light and dark pages. `script` draws to standard output; the terminal is set
// here, width x height pixels. Throws with gnuplot's own words when it fails, and with a hint when
// it is not installed.
std::string run_gnuplot(const std::filesystem::path& stem, const std::string& title, int width,
                        int height, const std::string& script, const std::string& data);

}  // namespace graft
