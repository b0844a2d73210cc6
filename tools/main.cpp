// The `flash-mla` command line program.
#include "cli.h"

int main(int argc, char** argv) { return flash_mla::tools::run_program(argc, argv); }
