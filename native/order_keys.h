// Dask's sort key of a node, compared without being made: how much it depends on in all, on how many nodes, on how many
// roots, the most dependents of any of these roots (more comes first), str(key).
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "order.h"
#include "order_graph.h"

namespace composable::ordering {

class SortKeys {
 public:
  SortKeys(const Graph& graph, KeyTexts& texts);

  /// Keys of one text, which Dask takes in the order of a set, are in ascending order.
  bool less(Node a, Node b);
  void sort(Array<Node>& nodes);
  Node largest(std::span<const Node> nodes);
  /// Roots that the node depends on; 0 for a root.
  std::int32_t roots(Node node);

 private:
  // What Dask computes of every node before it begins, except for the text and, as it takes longest, the roots.
  struct Weight {
    std::uint64_t total;
    std::int32_t dependencies;
    std::int32_t roots;
    std::int32_t most_dependents;
  };

  int compare_weights(Node a, Node b);
  std::string_view text(Node node);
  void sort_by_text(std::span<Node> nodes);
  void count_roots();

  const Graph& graph_;
  KeyTexts& source_;
  Array<Weight> weights_;
  Array<std::string_view> texts_;  // without data where not asked for yet
  bool roots_counted_ = false;
};

/// How much each node depends on in all: itself, and that of each of its dependencies, so that what is reached along
/// several ways counts several times. That soon outgrows any integer (a chain of diamonds doubles it at every step), so
/// these are not the sums but numbers in the same relation to one another.
Array<std::uint64_t> total_dependencies(const Graph& graph);

}  // namespace composable::ordering
