// Which ends of the graph a node is connected to: its roots among what it depends on, or, with the links the other way
// round, its leaves.
//
// The ends are numbered as a depth-first walk meets them, so that a node's are neighbours and their set is a few
// intervals: a reduction by a tree or a running sum over n chunks takes O(n) in all, where lists would take n log n or
// n squared. Nodes with the same ends share one set.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>

#include "order_graph.h"

namespace composable::ordering {

struct Interval {
  std::int32_t begin, end;
  bool operator==(const Interval&) const = default;
};

class ConnectedSets {
 public:
  /// `order` has every node after those it links to; nodes without links are the ends.
  ConnectedSets(const Links& links, std::span<const Node> order, Node size);

  /// How many ends; an end itself counts itself.
  std::int32_t count(Node node) const noexcept { return sets_[at(set_of_[at(node)])].count; }
  /// Their numbers, ascending, no two intervals touching.
  std::span<const Interval> ends(Node node) const noexcept { return intervals(set_of_[at(node)]); }

 private:
  using SetId = std::int32_t;
  struct Set {
    std::size_t begin;
    std::uint32_t size;
    std::int32_t count;
  };

  std::span<const Interval> intervals(SetId set) const noexcept {
    return {intervals_.data() + sets_[at(set)].begin, sets_[at(set)].size};
  }
  SetId unite(std::span<const SetId> sets);
  SetId add(std::span<const Interval> intervals, std::int32_t count);

  Array<SetId> set_of_;  // by node
  Array<Set> sets_;
  Array<Interval> intervals_;
  std::unordered_multimap<std::uint64_t, SetId> long_sets_;  // by hash
  Array<Interval> scratch_;
};

}  // namespace composable::ordering
