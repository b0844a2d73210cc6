// A line chart over time as inline SVG. Colours are CSS variables of the page (--series-1, --series-2, --ink, --grid),
// so one picture suits light and dark pages.
#pragma once

#include <string>
#include <vector>

namespace flash_mla::tools {

struct ChartSeries {
  std::string name;
  int color = 1;  // --series-<color>
  std::vector<double> values;
  std::vector<double> lowest, highest;  // a band around the line; may be empty
  bool filled = false;                  // from the axis to the line
};

struct ChartLevel {
  std::string name;
  double value = 0;
};

struct Chart {
  std::string label;      // for those who cannot see it
  std::string unit;       // of the y axis
  std::vector<double> x;  // seconds, increasing
  std::vector<ChartSeries> series;
  std::vector<ChartLevel> levels;  // dashed horizontal lines
  std::vector<double> marks;       // x of events, drawn under the axis
  std::string mark_name;
};

std::string svg_line_chart(const Chart& chart);

struct Bar {
  std::string name;
  double value = 0;
  std::string text;  // the value for people
  int color = 1;
};

// Horizontal bars from zero, to one scale.
std::string svg_bar_chart(const std::string& label, const std::vector<Bar>& bars);

std::string html_escaped(const std::string& text);

}  // namespace flash_mla::tools
