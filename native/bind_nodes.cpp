#include "bind_nodes.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

namespace composable {
namespace {

py::object steal(PyObject* object) { return py::reinterpret_steal<py::object>(object); }

bool is(py::handle object, const py::object& type) {
  return Py_TYPE(object.ptr()) == reinterpret_cast<PyTypeObject*>(type.ptr());
}

bool is_kind_of(py::handle object, const py::object& type) {
  return PyType_IsSubtype(Py_TYPE(object.ptr()), reinterpret_cast<PyTypeObject*>(type.ptr())) != 0;
}

// What a task calls.
struct TaskCall {
  py::object func, args, kwargs;
};

PyObject* evaluate(const NodeTypes& types, py::handle node, const Values& values);

// An argument of a task: a reference to another node, a node of its own, or itself.
PyObject* argument(const NodeTypes& types, PyObject* given, const Values& values) {
  if (is(given, types.task_ref) || is_kind_of(given, types.task_ref)) {
    return values.look_up(given, types.key);
  }
  if (is_kind_of(given, types.graph_node)) return evaluate(types, given, values);
  return Py_NewRef(given);
}

// Empty with the error set where the task lacks something.
TaskCall read_call(const NodeTypes& types, py::handle task) {
  TaskCall call{steal(types.func.get(task.ptr())), steal(types.args.get(task.ptr())),
                steal(types.kwargs.get(task.ptr()))};
  if (!call.func || !call.args || !call.kwargs) return {};
  return call;
}

PyObject* call_task(const NodeTypes& types, const TaskCall& call, const Values& values) {
  const py::object sequence = steal(PySequence_Tuple(call.args.ptr()));
  if (!sequence) return nullptr;
  const Py_ssize_t count = PyTuple_GET_SIZE(sequence.ptr());
  const Guarded<py::object> given(steal(PyTuple_New(count)));
  if (!given) return nullptr;
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* value = argument(types, PyTuple_GET_ITEM(sequence.ptr(), i), values);
    if (value == nullptr) return nullptr;
    PyTuple_SET_ITEM(given.ptr(), i, value);
  }
  Guarded<py::object> named;
  if (PyDict_Check(call.kwargs.ptr()) && PyDict_GET_SIZE(call.kwargs.ptr()) > 0) {
    named = steal(PyDict_New());
    PyObject *key, *value;
    for (Py_ssize_t place = 0; PyDict_Next(call.kwargs.ptr(), &place, &key, &value) != 0;) {
      const Guarded<py::object> evaluated(steal(argument(types, value, values)));
      if (!evaluated || PyDict_SetItem(named.ptr(), key, evaluated.ptr()) != 0) return nullptr;
    }
  }
  return in_python([&] { return PyObject_Call(call.func.ptr(), given.ptr(), named.ptr()); });
}

// A subclass may be called in a way of its own.
bool is_called_as_task(const NodeTypes& types, py::handle node) {
  if (is(node, types.task)) return true;
  if (!is_kind_of(node, types.task)) return false;
  const py::object own = steal(PyObject_GetAttrString(reinterpret_cast<PyObject*>(Py_TYPE(node.ptr())), "__call__"));
  const py::object tasks = steal(PyObject_GetAttrString(types.task.ptr(), "__call__"));
  return own && own.is(tasks);
}

// Recursion is as deep as nodes stand inside one another, not as the graph.
PyObject* call_guarded(const NodeTypes& types, const TaskCall& call, const Values& values) {
  if (Py_EnterRecursiveCall(" while evaluating a node of a graph") != 0) return nullptr;
  PyObject* result = call_task(types, call, values);
  Py_LeaveRecursiveCall();
  return result;
}

PyObject* evaluate(const NodeTypes& types, py::handle node, const Values& values) {
  if (is(node, types.data_node)) return types.value.get(node.ptr());
  if (is(node, types.alias)) return values.look_up(node.ptr(), types.target);
  if (is_called_as_task(types, node)) {
    const TaskCall call = read_call(types, node);
    return call.func ? call_guarded(types, call, values) : nullptr;
  }
  PyObject* all = values.dict();
  return all == nullptr ? nullptr : in_python([&] { return PyObject_CallOneArg(node.ptr(), all); });
}

}  // namespace

bool is_converted(const NodeTypes& types, py::handle graph) {
  if (!PyDict_CheckExact(graph.ptr())) return false;
  // Types of nodes are few, their nodes many and in no cache: those are asked for some steps before.
  constexpr Py_ssize_t kAhead = 16;
  PyObject *key, *node, *coming[kAhead] = {};
  Py_ssize_t seen = 0, place = 0;
  const auto fits = [&](PyObject* each) {
    return is_kind_of(each, types.graph_node) && !is_kind_of(each, types.alias);
  };
  for (; PyDict_Next(graph.ptr(), &place, &key, &node) != 0; ++seen) {
    PyObject*& slot = coming[seen % kAhead];
    if (slot != nullptr && !fits(slot)) return false;
    slot = node;
    __builtin_prefetch(node);
  }
  return std::all_of(coming, coming + std::min(seen, kAhead), fits);
}

PyObject* Values::look_up(PyObject* key) const {
  if (!dict_) {
    if (PyObject* found = same(key)) return Py_NewRef(found);
  }
  const auto kept = Guarded<py::object>(py::reinterpret_borrow<py::object>(key));
  PyObject* all = dict();  // an equal key may stand there
  if (all == nullptr) return nullptr;
  if (PyObject* found = PyDict_GetItemWithError(all, key)) return Py_NewRef(found);
  if (PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_KeyError, key);
  return nullptr;
}

PyObject* Values::look_up(PyObject* reference, const Slot& attribute) const {
  // Not counted as a reference where that can be spared: the key may be in no cache.
  if (PyObject* key = attribute.peek(reference)) return look_up(key);
  const Guarded<py::object> key(steal(attribute.get(reference)));
  return key ? look_up(key.ptr()) : nullptr;
}

PyObject* Values::same(PyObject* key) const {
  constexpr std::size_t kFew = 8;
  if (keys_.size() <= kFew) {
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (keys_[i] == key) return value(i);
    }
    return nullptr;
  }
  const auto place = [this](PyObject* of) {
    const auto mixed = reinterpret_cast<std::uintptr_t>(of) * std::uint64_t{0x9e3779b97f4a7c15};
    std::size_t at = mixed >> (64 - std::countr_zero(table_.size()));
    while (table_[at].key != nullptr && table_[at].key != of) at = (at + 1) & (table_.size() - 1);
    return at;
  };
  if (table_.empty()) {
    table_.resize(std::bit_ceil(2 * keys_.size()), Entry{nullptr, nullptr});
    for (std::size_t i = 0; i < keys_.size(); ++i) table_[place(keys_[i])] = {keys_[i], value(i)};
  }
  return table_[place(key)].value;
}

PyObject* Values::dict() const {
  if (!dict_) {
    Guarded<py::object> all(steal(PyDict_New()));
    if (!all) return nullptr;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      if (PyDict_SetItem(all.ptr(), keys_[i], value(i)) != 0) return nullptr;
    }
    dict_ = std::move(all);
  }
  return dict_.ptr();
}

bool is_data(const NodeTypes& types, py::handle node) {
  return is(node, types.data_node) || is_kind_of(node, types.data_node);
}

py::object dependencies_of(const NodeTypes& types, py::handle node) {
  py::object found = steal(types.dependencies.get(node.ptr()));
  if (found && !PyFrozenSet_CheckExact(found.ptr())) found = steal(PyFrozenSet_New(found.ptr()));
  if (!found) throw py::error_already_set();
  return found;
}

// The inner nodes in an order in which each comes after what it depends on, and what may be forgotten after each.
struct NodePlan::Fused {
  struct Step {
    py::object key;
    NodePlan plan;
    std::vector<py::object> forgotten;  // keys nobody needs after this step
  };
  std::vector<py::object> inputs;  // keys inside
  std::vector<py::object> given;   // what they are outside: arguments of the fused node
  std::vector<Step> steps;
  py::object out;
};

NodePlan::NodePlan(const NodeTypes& types, py::handle node)
    : types_(&types), node_(py::reinterpret_borrow<py::object>(node)) {}
NodePlan::NodePlan(NodePlan&&) noexcept = default;
NodePlan::~NodePlan() = default;

void NodePlan::prepare() {
  if (is(node_, types_->task)) fused_ = unfuse();
}

// Null where the node is not a fused one, or does not look as Task.fuse makes them.
std::unique_ptr<NodePlan::Fused> NodePlan::unfuse() const {
  const NodeTypes& types = *types_;
  const py::object func = steal(types.func.get(node_.ptr()));
  if (!func) throw py::error_already_set();
  if (func.ptr() != types.execute_subgraph.ptr()) return nullptr;
  const TaskCall call = read_call(types, node_);
  if (!call.func) throw py::error_already_set();
  if (!PyTuple_Check(call.args.ptr())) return nullptr;
  const auto args = py::reinterpret_borrow<py::tuple>(call.args);
  if (args.size() < 3 || !PyDict_CheckExact(args[0].ptr()) || !PyTuple_Check(args[2].ptr())) return nullptr;
  const auto inner = py::reinterpret_borrow<py::dict>(args[0]);
  const auto inputs = py::reinterpret_borrow<py::tuple>(args[2]);
  if (inputs.size() + 3 != args.size() || !inner.contains(args[1])) return nullptr;

  auto fused = std::make_unique<Fused>();
  fused->out = args[1];
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    fused->inputs.push_back(inputs[i]);
    fused->given.push_back(args[i + 3]);
  }
  // Depth first from the output. Which of several branches goes first is for memory alone: the one named first.
  py::set opened, placed;
  py::dict last_use;  // key -> step
  std::vector<std::pair<py::object, bool>> stack{{fused->out, false}};
  while (!stack.empty()) {
    auto [key, entered] = stack.back();
    stack.pop_back();
    if (placed.contains(key)) continue;
    const py::object found = steal(Py_XNewRef(PyDict_GetItemWithError(inner.ptr(), key.ptr())));
    if (!found) {
      if (PyErr_Occurred() != nullptr) throw py::error_already_set();
      continue;  // an input
    }
    if (!is_kind_of(found, types.graph_node)) return nullptr;
    const py::object needs = dependencies_of(types, found);
    if (!entered) {
      if (opened.contains(key)) return nullptr;  // a cycle: Dask's to report
      opened.add(key);
      stack.emplace_back(key, true);
      for (py::handle needed : needs) stack.emplace_back(py::reinterpret_borrow<py::object>(needed), false);
      continue;
    }
    placed.add(key);
    for (py::handle needed : needs) last_use[needed] = py::int_(fused->steps.size());
    fused->steps.push_back({key, NodePlan(types, found), {}});
    fused->steps.back().plan.prepare();
  }
  if (fused->steps.size() != inner.size()) return nullptr;  // something beside the output: left to Dask
  for (auto [key, step] : last_use) {
    fused->steps[step.cast<std::size_t>()].forgotten.push_back(py::reinterpret_borrow<py::object>(key));
  }
  return fused;
}

PyObject* NodePlan::run(const Values& values) const {
  if (!fused_) return evaluate(*types_, node_, values);
  Guarded<py::dict> inside;
  const Values inner(inside);
  for (std::size_t i = 0; i < fused_->inputs.size(); ++i) {
    const Guarded<py::object> value(steal(argument(*types_, fused_->given[i].ptr(), values)));
    if (!value || PyDict_SetItem(inside.ptr(), fused_->inputs[i].ptr(), value.ptr()) != 0) return nullptr;
  }
  for (const Fused::Step& step : fused_->steps) {
    const Guarded<py::object> value(steal(step.plan.run(inner)));
    if (!value) return nullptr;
    for (const py::object& key : step.forgotten) {
      if (in_python([&] { return PyDict_DelItem(inside.ptr(), key.ptr()); }) != 0) return nullptr;
    }
    if (PyDict_SetItem(inside.ptr(), step.key.ptr(), value.ptr()) != 0) return nullptr;
  }
  return inner.look_up(fused_->out.ptr());
}

void NodePlan::prefetch_call() const noexcept {
  prefetch_object(types_->args.peek(node_.ptr()));
  __builtin_prefetch(types_->kwargs.peek(node_.ptr()));
}

void NodePlan::prefetch_arguments() const noexcept { prefetch_items(types_->args.peek(node_.ptr())); }

}  // namespace composable
