// The arithmetic of the partition (partition.h), shared by the host's loops and the device's kernel: prefix sums of
// unit weights in chunks of requests, and from a point along them to a cut.
#pragma once

#include <cstdint>

#include "core/divisor.h"
#include "core/host_device.h"
#include "core/int_math.h"
#include "schedule/cost.h"
#include "schedule/layout.h"
#include "schedule/records.h"
#include "schedule/request_units.h"
#include "schedule/work.h"

namespace flash_mla {

// Weight of a unit along which cuts are equally spaced: its modelled time, or the pieces that it is cut into.
struct CostWeight {
  CostModel cost;
  Divisor per_block = Divisor(static_cast<std::uint32_t>(cost.per_block));

  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const { return cost.tile(blocks); }
  // Whole blocks that a unit has done at an offset into it.
  FLASH_MLA_HOST_DEVICE std::int32_t blocks_at(std::int64_t offset) const {
    return static_cast<std::int32_t>(
        per_block.long_quotient(static_cast<std::uint64_t>(max_of(offset - cost.fixed, std::int64_t{0}))));
  }
};
struct PieceWeight {
  std::int32_t piece_blocks = 1;
  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const {
    const std::uint32_t length = piece_blocks;
    return max_of((static_cast<std::uint32_t>(blocks) + length - 1) / length, 1u);
  }
};
struct BlockWeight {
  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const { return blocks; }
};

// A batch in chunks of equally many requests.
struct Chunks {
  static constexpr std::int32_t kMost = 512;

  std::int32_t size = 1, count = 0;
  std::int32_t first_quarter = 1;  // the greatest power of 4 below count, 1 at least

  static Chunks of(std::int32_t batch) {
    const std::int32_t size = max_of(ceil_div(batch, kMost), 1), count = ceil_div(batch, size);
    return {size, count, count > 256 ? 256 : count > 64 ? 64 : count > 16 ? 16 : count > 4 ? 4 : 1};
  }
};

// Weight of all requests before each chunk; before[count] is the total.
struct WeightTable {
  std::int64_t before[Chunks::kMost + 1];

  // The unit at 0 <= offset < total.
  template <class Weight>
  FLASH_MLA_HOST_DEVICE UnitAt find(const UnitWork& work, const Chunks& chunks, Weight weight, std::int64_t offset,
                                    std::int32_t* request) const {
    // Its chunk, before[low] <= offset < before[low + 1]: in quarters, since three loads take as long as one.
    const auto starts_by = [&](std::int32_t chunk) {
      return before[min_of(chunk, chunks.count)] <= offset ? 1 : 0;  // 0 for the end: offset < total
    };
    std::int32_t low = 0, quarter = chunks.first_quarter;
    FLASH_MLA_NO_UNROLL do {
      low += (starts_by(low + quarter) + starts_by(low + 2 * quarter) + starts_by(low + 3 * quarter)) * quarter;
      quarter >>= 2;
    }
    while (quarter > 0)
      ;
    offset -= before[low];
    const std::int32_t last = min_of((low + 1) * chunks.size, work.batch) - 1;
    *request = low * chunks.size;
    FLASH_MLA_NO_UNROLL for (;; ++*request) {
      const RequestUnits units(work, *request);
      const std::int64_t total = *request < last ? units.total(weight) : offset + 1;
      if (offset < total) return units.find(offset, weight);
      offset -= total;
    }
  }
};

// What one pass over the requests gathers.
struct WorkTotals {
  std::int64_t cost = 0;
  std::int64_t units = 0;
  std::int64_t blocks = 0;
  std::int32_t max_blocks = 0;  // of one unit
  std::uint32_t lengths_hash = 0;

  FLASH_MLA_HOST_DEVICE void add(const WorkTotals& other) {
    cost += other.cost, units += other.units, blocks += other.blocks;
    max_blocks = max_of(max_blocks, other.max_blocks);
    lengths_hash += other.lengths_hash;
  }
};

FLASH_MLA_HOST_DEVICE WorkTotals totals_of(const UnitWork& work, const CostModel& cost, std::int32_t request) {
  const RequestUnits units(work, request);
  const std::int64_t blocks = units.total(BlockWeight{});
  return {units.count() * std::int64_t{cost.fixed} + blocks * cost.per_block, units.count(), blocks, units.max_blocks(),
          lengths_hash_of_request(work, request)};
}

FLASH_MLA_HOST_DEVICE std::int32_t half_of_parts(std::int32_t num_parts) { return max_of(num_parts / 2, 1); }

// Of num_parts: half of them for a step of few blocks, if each unit finds one. Without looking at the blocks if there
// are more units than parts.
FLASH_MLA_HOST_DEVICE std::int32_t parts_to_use(const CostModel& cost, const WorkTotals& totals,
                                                std::int32_t num_parts) {
  const std::int32_t half = half_of_parts(num_parts);
  const bool is_short = cost.few_blocks > 0 && totals.blocks <= std::int64_t{cost.few_blocks} * num_parts;
  return is_short && totals.units <= half ? half : num_parts;
}

// Equal shares of a total for at most 2^16 parts.
class EqualShares {
 public:
  EqualShares() = default;
  FLASH_MLA_HOST_DEVICE EqualShares(std::int64_t total, Divisor num_parts)
      : total_(total),
        num_parts_(num_parts),
        share_(static_cast<std::int64_t>(num_parts.long_quotient(static_cast<std::uint64_t>(total)))),
        rest_(static_cast<std::uint32_t>(total - share_ * num_parts.value())) {}

  FLASH_MLA_HOST_DEVICE std::int64_t total() const { return total_; }
  FLASH_MLA_HOST_DEVICE std::int32_t num_parts() const { return num_parts_.value(); }
  // floor(part * total / num_parts) for part < num_parts, without overflow.
  FLASH_MLA_HOST_DEVICE std::int64_t before(std::int32_t part) const {
    return share_ * part + num_parts_.quotient(rest_ * static_cast<std::uint32_t>(part));
  }

 private:
  std::int64_t total_ = 0;
  Divisor num_parts_;
  std::int64_t share_ = 0;
  std::uint32_t rest_ = 0;  // < num_parts
};

// Where the boundary of an equal share falls: in a unit, `offset` behind its beginning along the modelled time.
struct CutPoint {
  std::int32_t request = 0, sub = 0;  // of the unit
  std::int32_t blocks = 0;            // of the unit
  std::int32_t block = 0;             // the last block boundary at or before the point
  std::int32_t units = 0;             // of the request
  std::int64_t before = 0;            // modelled time of all units before it
  std::int64_t offset = 0;
};

FLASH_MLA_HOST_DEVICE CutPoint find_cut_point(const UnitWork& work, const Chunks& chunks, const CostWeight& weight,
                                              const WeightTable& costs, const EqualShares& shares, std::int32_t part) {
  if (part >= shares.num_parts()) return {.request = work.batch, .before = shares.total()};
  const std::int64_t target = shares.before(part);
  CutPoint point;
  const UnitAt unit = costs.find(work, chunks, weight, target, &point.request);
  point.sub = unit.sub, point.blocks = unit.blocks, point.units = unit.units;
  point.before = target - unit.offset, point.offset = unit.offset;
  point.block = weight.blocks_at(unit.offset);
  return point;
}

// The rules by which boundaries of equal shares become cuts. A boundary moves to an end of its unit if that costs no
// neighbour more than `slack` beyond what cutting the unit would; else it moves down to a block boundary.
//   whole   all move
//   coarse  what cutting a unit adds to a part may be lost
//   snug    nothing may be lost
//   fine    none moves
struct SnapRule {
  static constexpr std::int32_t kWhole = 0, kCoarse = 1, kSnug = 2, kFine = 3, kCount = 4;

  std::int32_t index = kWhole;

  FLASH_MLA_HOST_DEVICE std::int64_t slack(const CostModel& cost) const {
    constexpr std::int64_t kMuch = std::int64_t{1} << 62;
    if (index == kWhole) return kMuch;
    if (index == kFine) return -kMuch;
    return index == kCoarse ? std::int64_t{cost.fixed} + cost.partial : 0;
  }
};

struct Cut {
  std::int32_t block = 0;  // 0: before the unit of the cut point, all its blocks: behind it
  bool inside = false;     // of the unit
  std::int64_t cost = 0;   // modelled time of all work before it
};

FLASH_MLA_HOST_DEVICE Cut snapped(const CostModel& cost, const CutPoint& at, SnapRule rule) {
  // What a neighbour would have to do beyond what it does if the unit is cut here. Either writes a partial then, the
  // right one also pays the fixed cost again, unless nothing is cut.
  const std::int64_t again = rule.index == SnapRule::kWhole ? 0 : cost.fixed;
  const std::int64_t more_right = at.offset - again - cost.partial;
  const std::int64_t more_left = cost.tile(at.blocks) - at.offset - cost.partial;
  std::int32_t block = at.block;
  if (min_of(more_left, more_right) <= rule.slack(cost)) block = more_left < more_right ? at.blocks : 0;
  return {block, block > 0 && block < at.blocks, at.before + (block > 0 ? cost.tile(block) : 0)};
}

// What lies between two neighbouring cuts by the same rule.
struct SharePart {
  std::int64_t time = 0;      // modelled, without merging; 0: nothing
  std::int32_t partials = 0;  // that the part writes
};

// `one_unit`: both cut points lie in the same unit.
FLASH_MLA_HOST_DEVICE SharePart part_between(const CostModel& cost, const Cut& begin, const Cut& end, bool one_unit) {
  if (end.cost <= begin.cost) return {};
  const std::int32_t head = begin.inside ? 1 : 0;
  const std::int32_t partials = head + (end.inside && !(begin.inside && one_unit) ? 1 : 0);
  return {end.cost - begin.cost + std::int64_t{head} * cost.fixed + std::int64_t{partials} * cost.partial, partials};
}

// The least and the greatest piece length that may be the least one for which all pieces find a part: with n blocks a
// piece there are at least blocks / n pieces and at most blocks / n + units.
FLASH_MLA_HOST_DEVICE std::int32_t least_piece_blocks(const WorkTotals& totals, std::int32_t num_parts) {
  return static_cast<std::int32_t>(max_of(ceil_div(totals.blocks, std::int64_t{num_parts}), std::int64_t{1}));
}
FLASH_MLA_HOST_DEVICE std::int32_t greatest_piece_blocks(const WorkTotals& totals, std::int32_t num_parts) {
  const std::int64_t longest = max_of(totals.max_blocks, 1);
  if (totals.units >= num_parts) return static_cast<std::int32_t>(longest);
  return static_cast<std::int32_t>(
      max_of(min_of(ceil_div(totals.blocks, num_parts - totals.units), longest), std::int64_t{1}));
}

// Longer pieces while the partials that they save cost more than the longest part then takes; with n blocks a piece
// there are about blocks / n.
FLASH_MLA_HOST_DEVICE PieceWeight worthwhile_pieces(const CostModel& cost, const WorkTotals& totals,
                                                    std::int32_t num_parts, PieceWeight shortest) {
  const std::int64_t saved = std::int64_t{2} * cost.partial * totals.blocks;
  const std::int64_t spent = std::int64_t{cost.per_block} * num_parts;
  std::int64_t n = shortest.piece_blocks;
  FLASH_MLA_NO_UNROLL while (n < totals.max_blocks && n * (n + 1) < saved / spent)++ n;
  return {static_cast<std::int32_t>(n)};
}

// How the units come apart with pieces of one length.
struct PieceCount {
  std::int32_t pieces = 0;
  std::int32_t partials = 0;  // pieces of units that have several
};

// Both counts of a unit in one sum. Lengths from least_piece_blocks on give at most parts + units <= 2 * parts pieces.
struct PieceCounter {
  PieceWeight weight;
  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const {
    const std::int64_t pieces = weight(blocks);
    return pieces + (pieces > 1 ? pieces << 32 : 0);
  }
  FLASH_MLA_HOST_DEVICE static PieceCount unpack(std::int64_t sum) {
    return {static_cast<std::int32_t>(sum & 0x7fffffff), static_cast<std::int32_t>(sum >> 32)};
  }
};

struct ShareTimes {
  std::uint32_t longest[SnapRule::kCount] = {};  // in StepClock's numbers
  std::int32_t partials[SnapRule::kCount] = {};
};

struct CutDecision {
  SnapRule shares = {};
  PieceWeight pieces = {};  // if by_pieces
  bool by_pieces = false;
  std::int64_t time = 0;  // of the step, in StepClock's numbers
};

// The best of the rules of shares; on a tie the one that moves more.
FLASH_MLA_HOST_DEVICE CutDecision decide_shares(const StepClock& clock, const ShareTimes& times) {
  CutDecision decision{.time = clock.step(times.longest[SnapRule::kWhole], 0)};
  for (std::int32_t i = 1; i < SnapRule::kCount; ++i) {
    const std::int64_t time = clock.step(times.longest[i], times.partials[i]);
    if (time < decision.time) decision.time = time, decision.shares = {i};
  }
  return decision;
}

// One part per unit, if that is as good: for at most as many units as parts.
FLASH_MLA_HOST_DEVICE void consider_uncut(const CostModel& cost, const StepClock& clock, const WorkTotals& totals,
                                          CutDecision* decision) {
  const std::int64_t time = clock.step(clock.part(cost.tile(totals.max_blocks)), 0);
  if (time > decision->time) return;
  *decision = {.pieces = {max_of(totals.max_blocks, 1)}, .by_pieces = true, .time = time};
}

// Equal pieces, if they are better; with 0 partials whether they might be. Returns that.
FLASH_MLA_HOST_DEVICE bool consider_pieces(const CostModel& cost, const StepClock& clock, const WorkTotals& totals,
                                           PieceWeight pieces, std::int32_t partials, CutDecision* decision) {
  if (pieces.piece_blocks >= totals.max_blocks) return false;  // nothing is cut
  const std::int64_t time = clock.step(clock.part(cost.tile(pieces.piece_blocks) + cost.partial), partials);
  if (time >= decision->time) return false;
  if (partials > 0) *decision = {.pieces = pieces, .by_pieces = true, .time = time};
  return true;
}

}  // namespace flash_mla
