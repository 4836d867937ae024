// Runs one node of a Dask graph: what calling it does (dask/_task_spec.py), without a Python frame of Dask's in
// between, and for fused nodes without ordering their inner graph each time they run. With the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace composable {

namespace py = pybind11;

/// Dask's classes, by which nodes are recognised.
struct NodeTypes {
  py::object graph_node, data_node, task, task_ref, alias;
  py::object execute_subgraph;  // the function of fused nodes
};

/// Some value, by key.
using Values = py::dict;

/// What a task calls; null in nodes of other kinds.
struct TaskCall {
  py::object func, args, kwargs;
};

/// Whether `graph` is a dict of nodes alone, none of which only names another one: there is nothing to convert then.
bool is_converted(const NodeTypes& types, py::handle graph);

/// A node, or the inner graph of a fused one, made ready to be run once.
class NodePlan {
 public:
  /// Keeps references to `node` and to `types`, which must live longer.
  NodePlan(const NodeTypes& types, py::handle node);
  NodePlan(NodePlan&&) noexcept;
  NodePlan& operator=(NodePlan&&) = delete;
  ~NodePlan();

  /// The node's value from those of its dependencies; a new reference, or null with the error set.
  PyObject* run(const Values& values) const;

  /// Asks for the memory that run() will read first.
  void prefetch() const noexcept { __builtin_prefetch(call_.args ? call_.args.ptr() : node_.ptr()); }

 private:
  struct Fused;
  static std::unique_ptr<Fused> unfuse(const NodeTypes& types, py::handle node, const TaskCall& call);

  const NodeTypes* types_;
  py::object node_;
  TaskCall call_;
  std::unique_ptr<Fused> fused_;
};

/// What a node depends on: its frozenset of keys.
py::object dependencies_of(py::handle node);

}  // namespace composable
