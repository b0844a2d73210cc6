// What the binding asks CUDA of a stream.
#pragma once

#include "flash_mla/flash_mla.h"

namespace flash_mla::python {

// Whether what is enqueued becomes part of a CUDA graph; also where CUDA does not tell, which it does while another
// thread captures.
[[nodiscard]] bool is_capturing(Stream stream) noexcept;

}  // namespace flash_mla::python
