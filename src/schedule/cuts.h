// The arithmetic of the partition (partition.h), shared by the host's loops and the device's kernel: prefix sums of
// unit weights in chunks of requests, and from a point along them to a cut.
#pragma once

#include <cstdint>

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
  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const { return cost.tile(blocks); }
};
struct PieceWeight {
  std::int32_t piece_blocks = 1;
  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const {
    return max_of(ceil_div(blocks, piece_blocks), 1);
  }
};
struct BlockWeight {
  FLASH_MLA_HOST_DEVICE std::int64_t operator()(std::int32_t blocks) const { return blocks; }
};

// Weight of all requests before each chunk of chunk_of(batch) requests; before[chunks_of(batch)] is the total.
struct WeightTable {
  static constexpr std::int32_t kMaxChunks = 512;

  std::int64_t before[kMaxChunks + 1];

  FLASH_MLA_HOST_DEVICE static std::int32_t chunk_of(std::int32_t batch) {
    return max_of(ceil_div(batch, kMaxChunks), 1);
  }
  FLASH_MLA_HOST_DEVICE static std::int32_t chunks_of(std::int32_t batch) { return ceil_div(batch, chunk_of(batch)); }

  // The unit at 0 <= offset < total. Request work.batch if lengths changed since the table was filled.
  template <class Weight>
  FLASH_MLA_HOST_DEVICE UnitAt find(const Work& work, Weight weight, std::int64_t offset, std::int32_t* request) const {
    const std::int32_t chunk = chunk_of(work.batch);
    std::int32_t low = 0, high = chunks_of(work.batch);  // before[low] <= offset < before[high]
    FLASH_MLA_NO_UNROLL while (high - low > 1) {
      const std::int32_t middle = (low + high) / 2;
      (before[middle] <= offset ? low : high) = middle;
    }
    offset -= before[low];
    FLASH_MLA_NO_UNROLL for (std::int32_t r = low * chunk; r < work.batch; ++r) {
      const RequestUnits units(work, r);
      const std::int64_t total = units.total(weight);
      if (offset < total) {
        *request = r;
        return units.find(offset, weight);
      }
      offset -= total;
    }
    *request = work.batch;
    return {};
  }
};

struct Cut {
  std::int32_t request = 0;
  std::int32_t sub = 0;
  std::int32_t block = 0;
  std::int64_t cost = 0;  // modelled time of all work before it

  FLASH_MLA_HOST_DEVICE bool inside_unit() const { return block > 0; }
};

enum class CutRule : std::int32_t { whole, pieces, fine };

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

FLASH_MLA_HOST_DEVICE WorkTotals totals_of(const Work& work, const CostModel& cost, std::int32_t request) {
  const RequestUnits units(work, request);
  const std::int64_t blocks = units.total(BlockWeight{});
  return {units.count() * std::int64_t{cost.fixed} + blocks * cost.per_block, units.count(), blocks, units.max_blocks(),
          lengths_hash_of_request(work, request)};
}

// Constants may come from outside: keep the promises of cost.h.
FLASH_MLA_HOST_DEVICE CostModel sanitized(const CostModel& cost) {
  return {max_of(cost.fixed, 1), max_of(cost.per_block, 1), max_of(cost.merge, 0)};
}

// floor(part * total / num_parts) without overflow.
FLASH_MLA_HOST_DEVICE std::int64_t share_before(std::int64_t total, std::int32_t part, std::int32_t num_parts) {
  return total / num_parts * part + total % num_parts * part / num_parts;
}

FLASH_MLA_HOST_DEVICE Cut end_cut(const Work& work, std::int64_t total_cost) { return {work.batch, 0, 0, total_cost}; }

// A unit and the modelled time before it; `block` is the last block boundary at or before the point that was asked for.
struct CutPoint {
  std::int32_t request = 0;
  UnitAt unit;
  std::int32_t block = 0;
  std::int64_t unit_cost_before = 0;
};

FLASH_MLA_HOST_DEVICE CutPoint find_cut_point(const Work& work, const CostModel& cost, const WeightTable& costs,
                                              std::int64_t target) {
  CutPoint point;
  point.unit = costs.find(work, CostWeight{cost}, target, &point.request);
  point.unit_cost_before = target - point.unit.offset;
  point.block = static_cast<std::int32_t>(max_of(point.unit.offset - cost.fixed, std::int64_t{0}) / cost.per_block);
  return point;
}

FLASH_MLA_HOST_DEVICE Cut nearer_end_of_unit(const Work& work, const CostModel& cost, const CutPoint& at) {
  const std::int64_t unit_cost = cost.tile(at.unit.blocks);
  if (2 * at.unit.offset < unit_cost) return {at.request, at.unit.sub, 0, at.unit_cost_before};
  const bool last = at.unit.sub + 1 == work.subs(at.request);
  return {at.request + (last ? 1 : 0), last ? 0 : at.unit.sub + 1, 0, at.unit_cost_before + unit_cost};
}

FLASH_MLA_HOST_DEVICE Cut block_boundary(const CostModel& cost, const CutPoint& at) {
  return {at.request, at.unit.sub, at.block, at.unit_cost_before + (at.block > 0 ? cost.tile(at.block) : 0)};
}

// The cuts before `part` of num_parts equal shares, by both rules.
struct ShareCuts {
  Cut whole, fine;
};

FLASH_MLA_HOST_DEVICE ShareCuts cuts_before_share(const Work& work, const CostModel& cost, const WeightTable& costs,
                                                  std::int64_t total_cost, std::int32_t part, std::int32_t num_parts) {
  if (part >= num_parts) return {end_cut(work, total_cost), end_cut(work, total_cost)};
  const CutPoint at = find_cut_point(work, cost, costs, share_before(total_cost, part, num_parts));
  return {nearer_end_of_unit(work, cost, at), block_boundary(cost, at)};
}

// The cut before piece `index` when units are cut into equal pieces; its cost is not filled in.
FLASH_MLA_HOST_DEVICE Cut cut_before_piece(const Work& work, PieceWeight weight, const WeightTable& pieces,
                                           std::int64_t index) {
  Cut cut;
  const UnitAt unit = pieces.find(work, weight, index, &cut.request);
  cut.sub = unit.sub;
  cut.block = static_cast<std::int32_t>(unit.blocks * unit.offset / weight(unit.blocks));
  return cut;
}

// Modelled time of the part between two neighbouring cuts, without merging.
FLASH_MLA_HOST_DEVICE std::int64_t part_time(const CostModel& cost, const Cut& begin, const Cut& end) {
  const std::int64_t time = end.cost - begin.cost;
  return time > 0 && begin.inside_unit() ? time + cost.fixed : time;
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

FLASH_MLA_HOST_DEVICE std::int64_t pieces_time(const CostModel& cost, const WorkTotals& totals,
                                               std::int32_t piece_blocks) {
  return cost.tile(min_of(piece_blocks, totals.max_blocks)) + (piece_blocks < totals.max_blocks ? cost.merge : 0);
}

struct CutDecision {
  CutRule rule = CutRule::whole;
  PieceWeight piece = {};  // for CutRule::pieces
};

// The rule with the least modelled time, given that of `whole` and `fine` and, where there are no more units than
// parts, the shortest possible pieces.
FLASH_MLA_HOST_DEVICE CutDecision decide(const CostModel& cost, const WorkTotals& totals, std::int32_t num_parts,
                                         std::int64_t whole_time, std::int64_t fine_time, PieceWeight shortest) {
  CutDecision decision;
  std::int64_t best = whole_time;
  if (totals.units <= num_parts) {
    const PieceWeight uncut{max_of(totals.max_blocks, 1)};
    const std::int64_t uncut_time = pieces_time(cost, totals, uncut.piece_blocks);
    const std::int64_t shortest_time = pieces_time(cost, totals, shortest.piece_blocks);
    decision.piece = uncut_time <= shortest_time ? uncut : shortest;
    const std::int64_t time = min_of(uncut_time, shortest_time);
    if (time < best) best = time, decision.rule = CutRule::pieces;
  }
  if (fine_time < best) decision.rule = CutRule::fine;
  return decision;
}

}  // namespace flash_mla
