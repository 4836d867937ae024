// The leaves in the order in which the walk aims for them.
#pragma once

#include <cstdint>
#include <memory>

#include "order_graph.h"
#include "order_keys.h"
#include "order_leaves.h"
#include "order_sets.h"

namespace composable::ordering {

class Targets {
 public:
  /// `done` has one entry for each node, not 0 for those that have their priority. All must outlive this.
  Targets(const Graph& graph, SortKeys& keys, const Array<std::uint8_t>& done);

  void root_done(Node root) { roots_done_.push_back(root); }
  /// The first dependency of a leaf is done.
  void leaf_touched(Node leaf) { leaves_touched_.push_back(leaf); }
  /// A leaf that is not done; there must be one. `midway` if any node is touched and not done.
  Node next(bool midway);

 private:
  Node next_by_degree();
  bool use_longest_path();
  const ConnectedSets& leaves_of_roots();

  const Graph& graph_;
  SortKeys& keys_;
  const Array<std::uint8_t>& done_;
  Array<Node> leaves_;  // by sort key
  bool longest_path_ = true;
  std::size_t taken_ = 0;
  std::unique_ptr<ConnectedSets> leaves_of_roots_;  // made when first needed, as are degrees
  std::unique_ptr<LeafDegrees> degrees_;
  Array<Node> roots_done_, leaves_touched_;  // not told to degrees_ yet
};

}  // namespace composable::ordering
