// The whole public API.
#pragma once

#include "flash_mla/decode.h"          // IWYU pragma: export
#include "flash_mla/info.h"            // IWYU pragma: export
#include "flash_mla/paged_kv_cache.h"  // IWYU pragma: export
#include "flash_mla/plan.h"            // IWYU pragma: export
#include "flash_mla/status.h"          // IWYU pragma: export
#include "flash_mla/types.h"           // IWYU pragma: export
#include "flash_mla/version.h"         // IWYU pragma: export
