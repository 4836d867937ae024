// Priorities of a graph's tasks: Dask's static order (dask.order.order, read at 2026.8.0), without Python.
//
// The priorities are Dask's, down to the last tie, but for one thing. Dask iterates over sets where it holds any order
// to be equivalent, so its answer hangs on the hashes of the keys and may change from run to run. Here it is
//   - ascending by sort key where dependencies are put on the critical path. That is what Dask does with them whenever
//     it walks back, and over some 300 graphs it held a third of a percent less than what Dask's own chance does.
//   - ascending by number of the node, which is the order of the graph, for everything else: dependents that become
//     runnable, data that goes with a task, roots that are compared for symmetry.
//
// Graphs with some structure cost a time near linear in nodes and edges, also where Dask's own is quadratic: sets of
// connected roots and leaves are kept as intervals (order_sets.h), the next target is found in a tree (order_leaves.h),
// and paths share their beginnings (order_paths.h). What is left is the sets of large graphs without any structure.
#pragma once

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string_view>

#include "array.h"

namespace composable {

/// Nodes 0..n-1 as Dask's dict holds them. Row i of `targets`, from offsets[i] to offsets[i + 1], is what node i
/// depends on, in any order. A target from n on is an external key: not in the graph, data by definition, given no
/// priority; their numbers follow one another.
struct OrderGraph {
  std::span<const std::int32_t> offsets;  // n + 1
  std::span<const std::int32_t> targets;
  std::span<const std::uint8_t> is_task;  // n; what dask.core.istask says of each node
};

/// str(key) of a node, UTF-8: the last resort to break a tie. Asked for at most once a node, and of few nodes in most
/// graphs. The text must stay where it is until order() returns. May throw.
class KeyTexts {
 public:
  virtual std::string_view text(std::int32_t node) = 0;
  /// The text of `node` will be asked for; `soon`: within a few others. A hint, to fetch it from memory meanwhile.
  virtual void expect(std::int32_t /*node*/, bool /*soon*/) noexcept {}

 protected:
  ~KeyTexts() = default;
};

class CycleError : public std::runtime_error {
 public:
  CycleError() : std::runtime_error("the graph has a cycle") {}
};

/// The priority of each node, lowest first: 0..n-1, each once, unless several nodes that are not tasks depend on more
/// than one other and nothing on them; Dask then skips and repeats numbers, and so does this. Throws CycleError, and
/// std::invalid_argument if the graph is malformed.
Array<std::int64_t> order(const OrderGraph& graph, KeyTexts& texts);

}  // namespace composable
