#include "flash_mla/version.h"

#define FLASH_MLA_TEXT_(x) #x
#define FLASH_MLA_TEXT(x) FLASH_MLA_TEXT_(x)

namespace flash_mla {

const char* version() noexcept {
  return FLASH_MLA_TEXT(FLASH_MLA_VERSION_MAJOR) "." FLASH_MLA_TEXT(FLASH_MLA_VERSION_MINOR) "." FLASH_MLA_TEXT(
      FLASH_MLA_VERSION_PATCH);
}

}  // namespace flash_mla
