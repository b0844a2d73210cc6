// Marks what the shared library exports; everything else is hidden.
#pragma once

#if defined(__GNUC__)
#define FLASH_MLA_API __attribute__((visibility("default")))
#else
#define FLASH_MLA_API
#endif
