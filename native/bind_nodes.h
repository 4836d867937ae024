// Runs one node of a Dask graph: what calling it does (dask/_task_spec.py), without a Python frame of Dask's in
// between, and for fused nodes without ordering their inner graph each time they run. With the GIL.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <span>
#include <vector>

#include "bind_slot.h"
#include "gil.h"
#include "graph.h"

namespace composable {

namespace py = pybind11;

/// Dask's classes, by which nodes are recognised, and where their instances keep what is read of every node.
struct NodeTypes {
  py::object graph_node, data_node, task, task_ref, alias;
  py::object execute_subgraph;  // the function of fused nodes
  bool plain_dependencies;      // the property `dependencies` returns `_dependencies` and does nothing else
  Slot func{task, "func"}, args{task, "args"}, kwargs{task, "kwargs"};
  Slot dependencies{task, "dependencies", plain_dependencies ? "_dependencies" : ""};
  Slot key{task_ref, "key"}, target{alias, "target"}, value{data_node, "value"};
};

/// The values of what a node depends on, by key. Nodes refer to them by the very objects that stand in their
/// `dependencies`, so a key is looked for by identity first, and nothing is hashed.
class Values {
 public:
  explicit Values(py::dict all) : dict_(std::move(all)) {}
  /// The value of keys[i] is values[nodes[i]]. All must live longer.
  Values(std::span<PyObject* const> keys, const Graph::Node* nodes, const Guarded<py::object>* values)
      : keys_(keys), nodes_(nodes), values_(values) {}

  /// As `values[key]`: a new reference, or null with KeyError set.
  PyObject* look_up(PyObject* key) const;
  /// The value of the key that `attribute` of `reference` is.
  PyObject* look_up(PyObject* reference, const Slot& attribute) const;
  /// All as a dict; borrowed, null with the error set.
  PyObject* dict() const;

 private:
  struct Entry {
    PyObject* key;
    PyObject* value;
  };
  PyObject* same(PyObject* key) const;
  PyObject* value(std::size_t at) const { return values_[static_cast<std::size_t>(nodes_[at])].ptr(); }

  const std::span<PyObject* const> keys_;
  const Graph::Node* const nodes_ = nullptr;
  const Guarded<py::object>* const values_ = nullptr;
  mutable std::vector<Entry> table_;  // of many keys: open addressing, its size a power of two
  mutable Guarded<py::object> dict_;  // once it was asked for
};

/// Whether `graph` is a dict of nodes alone, none of which only names another one: there is nothing to convert then.
bool is_converted(const NodeTypes& types, py::handle graph);

/// A node, made ready to be run once: of a fused one it has the order of the inner graph.
class NodePlan {
 public:
  /// Keeps a reference to `node`, and to `types`, which must live longer.
  NodePlan(const NodeTypes& types, py::handle node);
  NodePlan(NodePlan&&) noexcept;
  NodePlan& operator=(NodePlan&&) = delete;
  ~NodePlan();

  /// Finds out whether the node is a fused one, and orders it then. Once, before run().
  void prepare();
  /// The node's value from those of its dependencies; a new reference, or null with the error set.
  PyObject* run(const Values& values) const;

  // What run() will read, asked for in three steps, each of which needs what the one before asked for.
  void prefetch_node() const noexcept { prefetch_object(node_.ptr()); }
  void prefetch_call() const noexcept;
  void prefetch_arguments() const noexcept;

 private:
  struct Fused;
  std::unique_ptr<Fused> unfuse() const;

  const NodeTypes* types_;
  py::object node_;
  std::unique_ptr<Fused> fused_;
};

/// Whether a node is a value, not a task.
bool is_data(const NodeTypes& types, py::handle node);
/// What a node depends on: a frozenset of keys.
py::object dependencies_of(const NodeTypes& types, py::handle node);

}  // namespace composable
