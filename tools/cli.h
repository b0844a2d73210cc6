// The commands and flags of the program.
#pragma once

namespace flash_mla::tools {

// Runs the program; returns its exit code (see support/errors.h). Prints errors on standard error.
int run_program(int argc, const char* const* argv);

}  // namespace flash_mla::tools
