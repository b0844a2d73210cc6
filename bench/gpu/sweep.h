// Beside the peers' rows: a sweep over batch and length, which shows where a step is slower than its neighbours, and
// pairs of workloads that should take the same time. Both use short bursts.
#pragma once

#include <nlohmann/json.hpp>
#include <regex>

#include "rows.h"

namespace bench {

// b = 1 .. 256 and lengths 64 .. 32768, powers of two and 1.5 times them, at 16 and 128 heads:
// [{b, h, s_k, us, floor_us}, ...]. Only points whose Row::name() `only` finds.
nlohmann::json measure_sweep(const nlohmann::json& roof, const std::regex& only);

// Each taken in turns with what it is compared with: [{name, us, base_us, ratio}, ...].
//   skewed    one request of 16 times the others' length, against equal lengths of the same sum
//   few heads 8 and 4 heads, against 16, on each row of the file with 16 heads and one query
nlohmann::json measure_pairs(const std::vector<Row>& rows);

}  // namespace bench
