// A progress bar on standard error, only when that is a terminal.
#pragma once

#include <string>

namespace flash_mla::tools {

class ProgressBar {
 public:
  ProgressBar();
  ~ProgressBar() { clear(); }

  // share in [0, 1]; redraws at most ten times a second.
  [[nodiscard]] bool due();
  void show(double share, const std::string& text);
  void clear();

 private:
  bool on_terminal_;
  bool drawn_ = false;
  double last_seconds_ = -1;
};

}  // namespace flash_mla::tools
