// A Dask graph read once: integers for the arena, references for Python. With the GIL.
//
// Large graphs are in no cache: everything is gone through in the order in which it lies, and what the objects point to
// is asked for some steps before it is read. So it takes several passes.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "array.h"
#include "bind_key_index.h"
#include "bind_nodes.h"
#include "gil.h"
#include "graph.h"

namespace composable {

class GraphReader {
 public:
  /// Throws what hashing or comparing keys raises.
  GraphReader(const NodeTypes& types, const py::dict& graph);
  GraphReader(const GraphReader&) = delete;

  /// Dask's priorities, of the missing nodes too. May throw CycleError.
  Array<std::int64_t> order() const;
  /// The node of that key, or -1.
  Graph::Node find(py::handle key) const { return index_->find(key.ptr()); }

  // By node: those of the graph, then those that are missing.
  Array<py::object> keys;
  Graph::Lists dependencies;
  Array<Graph::Kind> kinds;
  Array<Guarded<py::object>> values;  // of data
  // By node of the graph.
  Array<NodePlan> plans;
  Array<py::object> needed_sets;  // of tasks: what they depend on
  // By entry of `dependencies`: the keys in these sets.
  Array<PyObject*> needed;

 private:
  void read_nodes(const NodeTypes& types, const Array<PyObject*>& nodes);
  void number_dependencies();

  std::optional<KeyIndex> index_;
  Array<std::uint8_t> is_task_;
};

}  // namespace composable
