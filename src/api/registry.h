// The backends of this build, in one place. Everything else meets a backend through core/backend.h.
#pragma once

#include "core/backend.h"
#include "flash_mla/status.h"
#include "flash_mla/types.h"

namespace flash_mla {

// The backend that serves `device`, or why there is none. `argument` names the device in the message.
[[nodiscard]] Status find_backend(Device device, const char* argument, const Backend** backend) noexcept;

}  // namespace flash_mla
