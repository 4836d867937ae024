// The graph as the ordering walks it: links both ways, without what is not worth a place in the order.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "order.h"

namespace composable::ordering {

using Node = std::int32_t;

inline std::size_t at(Node node) noexcept { return static_cast<std::size_t>(node); }

/// One row of nodes for each node. Rows may shrink.
class Links {
 public:
  Links() = default;
  /// Rows of these lengths, empty at first.
  explicit Links(std::span<const std::int32_t> lengths);

  std::span<const Node> operator[](Node node) const noexcept {
    const Row& row = rows_[at(node)];
    return {nodes_.data() + row.begin, row.size};
  }
  std::size_t size(Node node) const noexcept { return rows_[at(node)].size; }
  /// Unless it is the row's last already, so that rows filled in ascending order hold each node once.
  void append(Node row, Node node);
  template <typename Keep>
  void filter(Node row, Keep keep) {
    Row& filtered = rows_[at(row)];
    Node* const begin = nodes_.data() + filtered.begin;
    filtered.size = static_cast<std::uint32_t>(std::copy_if(begin, begin + filtered.size, begin, keep) - begin);
  }

 private:
  struct Row {
    std::uint32_t begin, size;
  };
  Array<Row> rows_;
  Array<Node> nodes_;
};

/// Dask's normalisation: leaves that are no tasks but depend on several nodes come last and are taken out; data that
/// several nodes depend on is taken out and gets its priority with the first of them.
struct Graph {
  /// Sets `priorities` of removed leaves, and to -1 those of all others. Throws CycleError and std::invalid_argument.
  Graph(const OrderGraph& source, Array<std::int64_t>& priorities);

  Node size = 0;                   // external keys included
  Node inner = 0;                  // those of the source; external keys come after
  Links dependencies, dependents;  // ascending
  Links data;                      // what was taken out and goes with a node; rows only if `has_data`
  bool has_data = false;
  Array<Node> roots, leaves;  // without dependencies, without dependents
  Array<Node> postorder;      // every node that is left, after its dependencies

 private:
  void link(const OrderGraph& source);
  /// How many nodes are left.
  std::size_t remove_data_and_aliases(const OrderGraph& source, Array<std::int64_t>& priorities);
};

/// All nodes reachable from `starts`, each after those it links to; neighbours in the graph are near one another.
/// Throws CycleError if it meets a cycle.
Array<Node> depth_first(const Links& links, std::span<const Node> starts, Node size);

}  // namespace composable::ordering
