// The partition on the host; src/cuda/schedule_kernel.cu runs the same steps in parallel.
//
//   survey     totals and the prefix sums of modelled time
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
  const Work& work;
  CostModel cost;
  std::int32_t num_parts;
  WorkTotals totals = {};
  WeightTable costs = {};
  WeightTable pieces = {};  // only for CutRule::pieces
  CutDecision decision = {};
};

template <class Weight>
std::int64_t total_of(const Work& work, Weight weight, std::int32_t begin, std::int32_t end) {
  std::int64_t sum = 0;
  for (std::int32_t r = begin; r < end; ++r) sum += RequestUnits(work, r).total(weight);
  return sum;
}

// Returns the total.
template <class Weight>
std::int64_t fill(const Work& work, Weight weight, WeightTable* table) {
  const std::int32_t chunk = WeightTable::chunk_of(work.batch), num_chunks = WeightTable::chunks_of(work.batch);
  std::int64_t sum = 0;
  for (std::int32_t i = 0; i < num_chunks; ++i) {
    table->before[i] = sum;
    sum += total_of(work, weight, i * chunk, min_of((i + 1) * chunk, work.batch));
  }
  return table->before[num_chunks] = sum;
}

void survey(Step* step) {
  for (std::int32_t r = 0; r < step->work.batch; ++r) step->totals.add(totals_of(step->work, step->cost, r));
  fill(step->work, CostWeight{step->cost}, &step->costs);
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

ShareCuts cuts_at(const Step& step, std::int32_t part) {
  return cuts_before_share(step.work, step.cost, step.costs, step.totals.cost, part, step.num_parts);
}

std::int64_t time_of(const Step& step, Cut ShareCuts::*rule) {
  std::int64_t longest = 0;
  bool any_cut = false;
  Cut begin = cuts_at(step, 0).*rule;
  for (std::int32_t part = 0; part < step.num_parts; ++part) {
    const Cut end = cuts_at(step, part + 1).*rule;
    longest = max_of(longest, part_time(step.cost, begin, end));
    any_cut |= end.inside_unit();
    begin = end;
  }
  return longest + (any_cut ? step.cost.merge : 0);
}

// Writes the positions of all parts that get work, in order; returns how many these are.
std::int32_t cut_pieces(Step* step, PartRecord* parts) {
  const std::int64_t count = fill(step->work, step->decision.piece, &step->pieces);
  for (std::int32_t i = 0; i < count; ++i) {
    parts[i] = record_at(cut_before_piece(step->work, step->decision.piece, step->pieces, i));
  }
  return static_cast<std::int32_t>(count);
}

std::int32_t cut_shares(const Step& step, Cut ShareCuts::*rule, PartRecord* parts) {
  std::int32_t used = 0;
  Cut begin = cuts_at(step, 0).*rule;
  for (std::int32_t part = 0; part < step.num_parts; ++part) {
    const Cut end = cuts_at(step, part + 1).*rule;
    if (end.cost > begin.cost) parts[used++] = record_at(begin);
    begin = end;
  }
  return used;
}

void number(const Step& step, std::int32_t used, PartRecord* parts, ScheduleHeader* header) {
  const Work& work = step.work;
  for (std::int32_t part = used; part <= step.num_parts; ++part) parts[part] = record_at(end_cut(work, 0));
  std::int32_t slots = 0;
  for (std::int32_t part = 0; part <= step.num_parts; ++part) {
    number_part(parts, part, used, slots);
    slots += part < step.num_parts ? partials_of(parts, part) : 0;
  }
  *header = make_header(work, step.totals, step.num_parts, slots);
}

}  // namespace

void make_schedule(const Work& work, const CostModel& cost, std::int32_t num_parts, void* schedule_memory) {
  PartRecord* parts = ScheduleLayout::parts(schedule_memory);
  Step step{.work = work, .cost = sanitized(cost), .num_parts = num_parts};
  survey(&step);
  std::int32_t used = 0;
  if (step.totals.cost > 0) {
    const PieceWeight shortest = step.totals.units <= num_parts ? shortest_pieces(step) : PieceWeight{};
    step.decision = decide(step.cost, step.totals, num_parts, time_of(step, &ShareCuts::whole),
                           time_of(step, &ShareCuts::fine), shortest);
    switch (step.decision.rule) {
      case CutRule::whole:
        used = cut_shares(step, &ShareCuts::whole, parts);
        break;
      case CutRule::pieces:
        used = cut_pieces(&step, parts);
        break;
      case CutRule::fine:
        used = cut_shares(step, &ShareCuts::fine, parts);
        break;
    }
  }
  number(step, used, parts, ScheduleLayout::header(schedule_memory));
}

}  // namespace flash_mla
