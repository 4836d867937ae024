#include "bind_graph_reader.h"

#include <span>
#include <utility>

#include "bind_order.h"
#include "bind_slot.h"
#include "order.h"

namespace composable {
namespace {

constexpr std::size_t kAhead = 8;

}  // namespace

GraphReader::GraphReader(const NodeTypes& types, const py::dict& graph) {
  const std::size_t count = graph.size();
  Array<PyObject*> borrowed, nodes;
  borrowed.reserve(count);
  nodes.reserve(count);
  PyObject *key, *node;
  for (Py_ssize_t place = 0; PyDict_Next(graph.ptr(), &place, &key, &node) != 0;) {
    borrowed.push_back(key);
    nodes.push_back(node);
  }
  keys.reserve(count);
  plans.reserve(count);
  for (std::size_t at = 0; at < count; ++at) {
    if (at + kAhead < count) {
      prefetch_object(borrowed[at + kAhead]);
      prefetch_object(nodes[at + kAhead]);
    }
    keys.push_back(py::reinterpret_borrow<py::object>(borrowed[at]));
    plans.emplace_back(types, nodes[at]);
  }  // from here on code of the program's may run: in hashes of keys
  index_.emplace(keys);
  read_nodes(types, nodes);
  number_dependencies();
}

void GraphReader::read_nodes(const NodeTypes& types, const Array<PyObject*>& nodes) {
  const std::size_t count = nodes.size();
  kinds.reserve(count);
  is_task_.reserve(count);
  values.reserve(count);
  needed_sets.reserve(count);
  dependencies.offsets.reserve(count + 1);
  for (std::size_t at = 0; at < count; ++at) {
    if (at + 2 * kAhead < count) prefetch_object(nodes[at + 2 * kAhead]);
    if (at + kAhead < count) {
      auto* set = reinterpret_cast<char*>(types.dependencies.peek(nodes[at + kAhead]));
      prefetch_object(set);
      __builtin_prefetch(set + 128);  // the number of entries and the table come late in a set
    }
    const bool data = is_data(types, nodes[at]);
    kinds.push_back(data ? Graph::Kind::data : Graph::Kind::task);
    is_task_.push_back(data ? 0 : 1);
    if (data) {
      values.emplace_back(py::handle(nodes[at]).attr("value"));
      needed_sets.emplace_back();
    } else {
      plans[at].prepare();
      values.emplace_back();
      needed_sets.push_back(dependencies_of(types, nodes[at]));
      const py::object& set = needed_sets.back();
      if (PySet_GET_SIZE(set.ptr()) > 0) {
        for (py::handle key : set) needed.push_back(key.ptr());
      }
    }
    dependencies.offsets.push_back(static_cast<std::int32_t>(needed.size()));
  }
}

void GraphReader::number_dependencies() {
  dependencies.nodes.reserve(needed.size());
  const auto key = [this](std::size_t at) { return needed[at]; };
  index_->find_all(needed.size(), key, [this](std::size_t at, KeyIndex::Hash hash, Graph::Node found) {
    if (found < 0) {  // beyond the graph: numbered behind it
      found = static_cast<Graph::Node>(keys.size());
      keys.push_back(py::reinterpret_borrow<py::object>(needed[at]));
      index_->add_last(hash);
      kinds.push_back(Graph::Kind::missing);
      values.emplace_back();
    }
    dependencies.nodes.push_back(found);
  });
  while (dependencies.offsets.size() <= keys.size()) dependencies.close();
}

Array<std::int64_t> GraphReader::order() const {
  KeyStrings texts(keys);
  const auto offsets = std::span(dependencies.offsets).first(is_task_.size() + 1);
  Array<std::int64_t> priorities = composable::order({offsets, dependencies.nodes, is_task_}, texts);
  while (priorities.size() < keys.size()) priorities.push_back(static_cast<std::int64_t>(priorities.size()));
  return priorities;
}

}  // namespace composable
