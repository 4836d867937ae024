#include "order_sets.h"

#include <algorithm>

namespace composable::ordering {
namespace {

// Sets up to this size are cheaper to have twice than to look up.
constexpr std::size_t kShort = 4;

std::uint64_t hash(std::span<const Interval> intervals) noexcept {
  std::uint64_t sum = intervals.size();
  for (const Interval& interval : intervals) {
    sum ^= static_cast<std::uint64_t>(interval.begin) << 32 | static_cast<std::uint64_t>(interval.end);
    sum *= 0x9E3779B97F4A7C15u;
    sum ^= sum >> 29;
  }
  return sum;
}

}  // namespace

ConnectedSets::ConnectedSets(const Links& links, std::span<const Node> order, Node size) : set_of_(at(size), 0) {
  // Room, not memory: what is not written is not given by the kernel. Growth would copy it, time and again.
  sets_.reserve(order.size());
  intervals_.reserve(order.size());
  Array<SetId> distinct;
  Array<Node> seen_by;  // by set
  seen_by.reserve(order.size());
  std::int32_t ends = 0;
  for (Node node : order) {
    const std::span<const Node> row = links[node];
    if (row.empty()) {
      const Interval own{ends, ends + 1};
      set_of_[at(node)] = add({&own, 1}, 1);
      ++ends;
      continue;
    }
    const SetId first = set_of_[at(row[0])];
    if (row.size() == 1) {
      set_of_[at(node)] = first;
      continue;
    }
    seen_by.resize(sets_.size(), -1);
    distinct.clear();
    for (Node linked : row) {
      const SetId set = set_of_[at(linked)];
      if (seen_by[at(set)] == node) continue;
      seen_by[at(set)] = node;
      distinct.push_back(set);
    }
    set_of_[at(node)] = distinct.size() == 1 ? first : unite(distinct);
  }
  long_sets_.clear();
}

ConnectedSets::SetId ConnectedSets::unite(std::span<const SetId> sets) {
  scratch_.clear();
  SetId largest = sets[0];
  for (SetId set : sets) {
    if (sets_[at(set)].count > sets_[at(largest)].count) largest = set;
    const auto more = intervals(set);
    scratch_.insert(scratch_.end(), more.begin(), more.end());
  }
  const auto before = [](const Interval& a, const Interval& b) { return a.begin < b.begin; };
  if (!std::is_sorted(scratch_.begin(), scratch_.end(), before)) std::sort(scratch_.begin(), scratch_.end(), before);
  auto last = scratch_.begin();
  for (auto next = last + 1; next != scratch_.end(); ++next) {
    if (next->begin <= last->end) {
      last->end = std::max(last->end, next->end);
    } else {
      *++last = *next;
    }
  }
  scratch_.erase(last + 1, scratch_.end());
  std::int32_t count = 0;
  for (const Interval& interval : scratch_) count += interval.end - interval.begin;

  if (count == sets_[at(largest)].count) return largest;
  if (scratch_.size() <= kShort) return add(scratch_, count);
  const std::uint64_t key = hash(scratch_);
  const auto [begin, end] = long_sets_.equal_range(key);
  for (auto same = begin; same != end; ++same) {
    if (std::ranges::equal(intervals(same->second), scratch_)) return same->second;
  }
  const SetId added = add(scratch_, count);
  long_sets_.emplace(key, added);
  return added;
}

ConnectedSets::SetId ConnectedSets::add(std::span<const Interval> intervals, std::int32_t count) {
  sets_.push_back({intervals_.size(), static_cast<std::uint32_t>(intervals.size()), count});
  intervals_.insert(intervals_.end(), intervals.begin(), intervals.end());
  return static_cast<SetId>(sets_.size() - 1);
}

}  // namespace composable::ordering
