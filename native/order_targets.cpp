#include "order_targets.h"

#include <cmath>

namespace composable::ordering {

Targets::Targets(const Graph& graph, SortKeys& keys, const Array<std::uint8_t>& done)
    : graph_(graph), keys_(keys), done_(done), leaves_(graph.leaves) {
  keys_.sort(leaves_);
  longest_path_ = use_longest_path();
}

Node Targets::next(bool midway) {
  if (midway) {
    if (const Node leaf = next_by_degree(); leaf >= 0) return leaf;
  }
  for (;;) {
    const std::size_t taken = taken_++;
    const Node leaf = leaves_.at(longest_path_ ? leaves_.size() - 1 - taken : taken);
    if (!done_[at(leaf)]) return leaf;  // Dask aims for those that are done too, which changes nothing
  }
}

Node Targets::next_by_degree() {
  const ConnectedSets& connected = leaves_of_roots();
  if (!degrees_) {
    Array<LeafDegrees::Leaf> leaves(leaves_.size());
    for (std::size_t rank = 0; rank < leaves_.size(); ++rank) {
      const Node leaf = leaves_[rank];
      leaves[at(connected.ends(leaf)[0].begin)] = {keys_.roots(leaf), static_cast<std::int32_t>(rank)};
    }
    degrees_ = std::make_unique<LeafDegrees>(leaves, connected);
  }
  const std::int32_t rank = degrees_->best(roots_done_, leaves_touched_);
  roots_done_.clear();
  leaves_touched_.clear();
  return rank < 0 ? -1 : leaves_[at(rank)];
}

// Some topologies fare better if the leaf that depends on most comes first, others with the opposite.
bool Targets::use_longest_path() {
  const auto roots = static_cast<double>(graph_.roots.size());
  const auto leaves = static_cast<double>(graph_.leaves.size());
  if (graph_.roots.empty() || std::abs(roots - leaves) / roots >= 0.8) return true;
  std::int32_t size = 0;
  for (Node root : graph_.roots) {
    const std::int32_t connected = graph_.dependents.size(root) == 0 ? 0 : leaves_of_roots().count(root);
    if (size == 0) {
      size = connected;
    } else if (size != connected) {
      return false;
    }
  }
  return true;
}

const ConnectedSets& Targets::leaves_of_roots() {
  if (!leaves_of_roots_) {
    const Links& links = graph_.dependents;
    const Array<Node> order = depth_first(links, graph_.roots, graph_.size);
    leaves_of_roots_ = std::make_unique<ConnectedSets>(links, order, graph_.size);
  }
  return *leaves_of_roots_;
}

}  // namespace composable::ordering
