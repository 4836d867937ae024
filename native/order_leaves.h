// Which leaf to aim for next, while the order is in the middle of the graph: one that needs the fewest roots that are
// not done yet (its degree), one touched by what is done before others, then by rank.
//
// Dask moves every leaf of a root from one set to another when the root is done, and looks through all candidates for
// each target, which is quadratic for maps on both sides of a barrier, or for chunks that share one operand. Here a
// leaf's degree is the sum of numbers on its way up a tree, so that a whole interval of leaves is counted down at its
// top, and each place in the tree knows its best leaf.
#pragma once

#include <cstdint>
#include <span>

#include "order_sets.h"

namespace composable::ordering {

class LeafDegrees {
 public:
  struct Leaf {
    std::int32_t degree;
    std::int32_t rank;  // lowest first
  };
  /// By the leaf's number in `connected`, the sets of leaves that roots are connected to. Both must outlive this.
  LeafDegrees(std::span<const Leaf> leaves, const ConnectedSets& connected);

  /// The rank of the leaf to aim for, given roots done and leaves touched since the last call, each told once in all;
  /// negative if every leaf's roots are done.
  std::int32_t best(std::span<const Node> roots_done, std::span<const Node> leaves_touched);

 private:
  struct Place {
    std::int32_t lowest = kOut;  // degree below here, without what is added further up
    std::int32_t added = 0;
    std::int32_t rank = kNone;     // the best of the lowest
    std::int32_t touched = kNone;  // the best of the lowest that are touched
  };
  static constexpr std::int32_t kOut = 1 << 30;  // a leaf whose roots are done
  static constexpr std::int32_t kNone = 1 << 30;

  void count_down(Interval leaves);
  void count_down_all(std::span<const Node> roots_done);
  void touch(Node leaf);
  void pull(std::size_t place) noexcept;
  void pull_above(std::size_t place) noexcept;
  void take_out_done() noexcept;

  const ConnectedSets& connected_;
  std::size_t width_ = 1;  // of the lowest row, a power of two
  Array<Place> places_;    // 1 is the top, below i are 2i and 2i + 1
  Array<std::int32_t> ranks_;
};

}  // namespace composable::ordering
