// See chart.h.
#include "replay/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "support/human.h"

namespace flash_mla::tools {
namespace {

constexpr double kWidth = 860, kHeight = 260, kLeft = 64, kRight = 16, kTop = 14, kBottom = 40;

// The steps 1, 2, 5 * 10^n that give at most `most` ticks up to `top`.
double tick_step(double top, int most) {
  const double rough = std::max(top, 1e-12) / most, power = std::pow(10.0, std::floor(std::log10(rough)));
  for (double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

std::string tick_text(double value, double step) {
  const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 6);
  return decimals == 0 ? human_count(static_cast<std::int64_t>(std::llround(value)))
                       : fmt::format("{:.{}f}", value, decimals);
}

class Plot {
 public:
  explicit Plot(const Chart& chart) : chart_(chart) {
    x_end_ = chart.x.empty() ? 1 : std::max(chart.x.back(), 1e-9);
    double top = 0;
    for (const ChartSeries& series : chart.series) {
      for (const auto* values : {&series.values, &series.highest}) {
        for (double value : *values) top = std::max(top, value);
      }
    }
    for (const ChartLevel& level : chart.levels) top = std::max(top, level.value);
    y_step_ = tick_step(top * 1.05, 5);
    y_end_ = std::max(1.0, std::ceil(top * 1.05 / y_step_)) * y_step_;
  }

  std::string text() {
    out_ = fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, kHeight,
                       html_escaped(chart_.label));
    axes();
    for (const ChartSeries& series : chart_.series) draw(series);
    for (const ChartLevel& level : chart_.levels) draw(level);
    marks();
    tooltips();
    return out_ + "</svg>\n";
  }

 private:
  [[nodiscard]] double x(double seconds) const { return kLeft + seconds / x_end_ * (kWidth - kLeft - kRight); }
  [[nodiscard]] double y(double value) const { return kHeight - kBottom - value / y_end_ * (kHeight - kTop - kBottom); }

  void axes() {
    for (double value = 0; value <= y_end_ * 1.0001; value += y_step_) {
      out_ += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft,
                          kWidth - kRight, y(value), y(value));
      out_ += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 8, y(value) + 4,
                          tick_text(value, y_step_));
    }
    const double step = tick_step(x_end_, 8);
    for (double value = 0; value <= x_end_ * 1.0001; value += step) {
      out_ += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(value), kHeight - 20,
                          tick_text(value, step));
    }
    out_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">seconds</text>\n", kWidth - kRight, kHeight - 4);
    out_ += fmt::format(
        "<text x=\"14\" y=\"{:.1f}\" text-anchor=\"middle\" transform=\"rotate(-90 14 {:.1f})\">{}</text>\n",
        y(y_end_ / 2), y(y_end_ / 2), html_escaped(chart_.unit));
  }

  [[nodiscard]] std::string points(const std::vector<double>& values, bool backwards = false) const {
    std::string text;
    for (std::size_t n = std::min(values.size(), chart_.x.size()), k = 0; k < n; ++k) {
      const std::size_t i = backwards ? n - 1 - k : k;
      text += fmt::format("{:.1f},{:.1f} ", x(chart_.x[i]), y(values[i]));
    }
    return text;
  }

  void draw(const ChartSeries& series) {
    if (chart_.x.empty()) return;
    const std::string color = fmt::format("var(--series-{})", series.color);
    if (!series.lowest.empty()) {
      out_ += fmt::format("<polygon fill=\"{}\" fill-opacity=\"0.22\" points=\"{}{}\"/>\n", color,
                          points(series.highest), points(series.lowest, true));
    }
    if (series.filled) {
      out_ += fmt::format("<polygon fill=\"{}\" fill-opacity=\"0.22\" points=\"{:.1f},{:.1f} {}{:.1f},{:.1f}\"/>\n",
                          color, x(chart_.x.front()), y(0), points(series.values), x(chart_.x.back()), y(0));
    }
    out_ += fmt::format(
        "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" stroke-linejoin=\"round\" points=\"{}\"/>\n", color,
        points(series.values));
  }

  void draw(const ChartLevel& level) {
    out_ += fmt::format("<line class=\"level\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", kLeft,
                        kWidth - kRight, y(level.value), y(level.value));
    out_ += fmt::format("<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kWidth - kRight - 4,
                        y(level.value) - 5, html_escaped(level.name));
  }

  void marks() {
    for (double seconds : chart_.marks) {
      out_ += fmt::format("<path class=\"mark\" d=\"M{:.1f} {} l-3.5 7 h7 z\"/>", x(seconds), kHeight - kBottom + 1);
    }
    if (!chart_.marks.empty()) out_ += "\n";
  }

  // Invisible columns whose titles browsers show under the pointer.
  void tooltips() {
    double left = kLeft;
    for (std::size_t i = 0; i < chart_.x.size(); ++i) {
      const double right = x(chart_.x[i]);
      std::string text = fmt::format("{:.1f} s", chart_.x[i]);
      for (const ChartSeries& series : chart_.series) {
        text += fmt::format("\n{}: {:.4g}", html_escaped(series.name), series.values[i]);
      }
      out_ += fmt::format(
          "<rect class=\"tip\" x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\"><title>{}</title></rect>", left,
          kTop, std::max(right - left, 0.5), kHeight - kTop - kBottom, text);
      left = right;
    }
    out_ += "\n";
  }

  const Chart& chart_;
  double x_end_ = 1, y_end_ = 1, y_step_ = 1;
  std::string out_;
};

}  // namespace

std::string html_escaped(const std::string& text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string svg_line_chart(const Chart& chart) { return Plot(chart).text(); }

std::string svg_bar_chart(const std::string& label, const std::vector<Bar>& bars) {
  constexpr double kRow = 34, kNames = 300, kTexts = 90;
  double top = 1e-12;
  for (const Bar& bar : bars) top = std::max(top, bar.value);
  const double height = kRow * static_cast<double>(bars.size()) + 6;
  std::string out =
      fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", kWidth, height, html_escaped(label));
  double at = 4;
  for (const Bar& bar : bars) {
    const double width = std::max(1.0, bar.value / top * (kWidth - kNames - kTexts));
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>", kNames - 8, at + 17,
                       html_escaped(bar.name));
    out += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"24\" rx=\"3\" fill=\"var(--series-{})\"/>",
                       kNames, at, width, bar.color);
    out += fmt::format("<text x=\"{:.1f}\" y=\"{}\">{}</text>\n", kNames + width + 7, at + 17, html_escaped(bar.text));
    at += kRow;
  }
  return out + "</svg>\n";
}

}  // namespace flash_mla::tools
