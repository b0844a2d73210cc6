// The library's version; the only place where it is written.
#pragma once

#include "flash_mla/export.h"

#define FLASH_MLA_VERSION_MAJOR 0
#define FLASH_MLA_VERSION_MINOR 1
#define FLASH_MLA_VERSION_PATCH 0

namespace flash_mla {

// Version of the library that was linked, "major.minor.patch"; compare with the macros to detect a mismatch.
[[nodiscard]] FLASH_MLA_API const char* version() noexcept;

}  // namespace flash_mla
