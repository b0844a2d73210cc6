// The partition on the host; src/cuda/schedule_kernel.cu runs the same steps in parallel.
//
//   survey     totals and the prefix sums of modelled time; how many parts to use
//   decide     the rule whose cuts give the least modelled time
//   cut        parts[p] = position of the p-th cut; parts without work last
//   number     slots of the units that were cut, the parts that share them
#include "schedule/partition.h"

#include "schedule/cuts.h"
#include "schedule/layout.h"
#include "schedule/number_splits.h"

namespace flash_mla {
namespace {

struct Step {
  UnitWork work;
  CostModel cost;
  std::int32_t all_parts;
  std::int32_t num_parts = all_parts;  // to use
  Chunks chunks = Chunks::of(work.batch);
  WorkTotals totals = {};
  WeightTable costs = {};
  WeightTable pieces = {};  // only where units are cut into equal pieces
};

template <class Weight>
std::int64_t total_of(const UnitWork& work, Weight weight, std::int32_t begin, std::int32_t end) {
  std::int64_t sum = 0;
  for (std::int32_t r = begin; r < end; ++r) sum += RequestUnits(work, r).total(weight);
  return sum;
}

// Returns the total.
template <class Weight>
std::int64_t fill(const UnitWork& work, Weight weight, WeightTable* table) {
  const Chunks chunks = Chunks::of(work.batch);
  std::int64_t sum = 0;
  for (std::int32_t i = 0; i < chunks.count; ++i) {
    table->before[i] = sum;
    sum += total_of(work, weight, i * chunks.size, min_of((i + 1) * chunks.size, work.batch));
  }
  return table->before[chunks.count] = sum;
}

void survey(Step* step) {
  for (std::int32_t r = 0; r < step->work.batch; ++r) step->totals.add(totals_of(step->work, step->cost, r));
  fill(step->work, CostWeight{step->cost}, &step->costs);
  step->num_parts = parts_to_use(step->cost, step->totals, step->all_parts);
}

// The least piece length for which every piece finds a part.
PieceWeight shortest_pieces(const Step& step) {
  std::int32_t low = least_piece_blocks(step.totals, step.num_parts);
  std::int32_t high = greatest_piece_blocks(step.totals, step.num_parts);
  while (low < high) {
    const std::int32_t middle = low + (high - low) / 2;
    if (total_of(step.work, PieceWeight{middle}, 0, step.work.batch) <= step.num_parts) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return {low};
}

// The boundaries of equal shares.
struct Boundaries {
  const Step& step;
  CostWeight weight{step.cost};
  EqualShares shares{step.totals.cost, Divisor(static_cast<std::uint32_t>(step.num_parts))};

  CutPoint at(std::int32_t part) const {
    return find_cut_point(step.work, step.chunks, weight, step.costs, shares, part);
  }
};

ShareTimes time_shares(const Step& step, const StepClock& clock) {
  const Boundaries boundaries{step};
  ShareTimes times;
  CutPoint begin = boundaries.at(0);
  for (std::int32_t part = 0; part < step.num_parts; ++part) {
    const CutPoint end = boundaries.at(part + 1);
    for (std::int32_t i = 0; i < SnapRule::kCount; ++i) {
      const SharePart between = part_between(step.cost, snapped(step.cost, begin, {i}), snapped(step.cost, end, {i}),
                                             begin.before == end.before);
      times.longest[i] = max_of(times.longest[i], clock.part(between.time)), times.partials[i] += between.partials;
    }
    begin = end;
  }
  return times;
}

// Writes the positions of all parts that get work, in order; returns how many these are.
std::int32_t cut_pieces(Step* step, PieceWeight weight, PartRecord* parts) {
  const std::int64_t count = fill(step->work, weight, &step->pieces);
  for (std::int32_t i = 0, partials; i < count; ++i) {
    parts[i] = record_before_piece(step->work, step->chunks, weight, step->pieces, i, &partials);
  }
  return static_cast<std::int32_t>(count);
}

std::int32_t cut_shares(const Step& step, SnapRule rule, PartRecord* parts) {
  const Boundaries boundaries{step};
  std::int32_t used = 0;
  CutPoint begin = boundaries.at(0);
  for (std::int32_t part = 0; part < step.num_parts; ++part) {
    const CutPoint end = boundaries.at(part + 1);
    const Cut cut = snapped(step.cost, begin, rule), next = snapped(step.cost, end, rule);
    if (next.cost > cut.cost) parts[used++] = record_at(begin, cut);
    begin = end;
  }
  return used;
}

void number(const Step& step, std::int32_t num_parts, std::int32_t used, PartRecord* parts, ScheduleHeader* header) {
  const Work& work = step.work;
  for (std::int32_t part = used; part <= num_parts; ++part) parts[part] = end_record(work);
  std::int32_t slots = 0;
  for (std::int32_t part = 0; part <= num_parts; ++part) {
    parts[part] = numbered(parts, part, used, slots);
    slots += part < num_parts ? partials_of(parts, part) : 0;
  }
  *header = make_header(shape_hash(work), work.batch, step.totals, num_parts, slots);
}

// Returns how many parts get work.
std::int32_t cut(Step* step, PartRecord* parts) {
  const StepClock clock(step->cost, step->totals.cost, step->all_parts);
  CutDecision decision = decide_shares(clock, time_shares(*step, clock));
  if (step->totals.units <= step->num_parts) {
    consider_uncut(step->cost, clock, step->totals, &decision);
    const PieceWeight pieces = worthwhile_pieces(step->cost, step->totals, step->all_parts, shortest_pieces(*step));
    const std::int64_t counted = total_of(step->work, PieceCounter{pieces}, 0, step->work.batch);
    const std::int32_t partials = PieceCounter::unpack(counted).partials;
    consider_pieces(step->cost, clock, step->totals, pieces, partials, &decision);
  }
  return decision.by_pieces ? cut_pieces(step, decision.pieces, parts) : cut_shares(*step, decision.shares, parts);
}

}  // namespace

void make_schedule(const Work& work, const CostModel& cost, std::int32_t num_parts, void* schedule_memory) {
  PartRecord* parts = ScheduleLayout::parts(schedule_memory);
  Step step{.work = work, .cost = cost.sanitized(), .all_parts = num_parts};
  survey(&step);
  std::int32_t used = 0;
  if (step.totals.cost > 0) used = cut(&step, parts);
  number(step, num_parts, used, parts, ScheduleLayout::header(schedule_memory));
}

}  // namespace flash_mla
