#include "bind_nodes.h"

#include <utility>

#include "gil.h"

namespace composable {
namespace {

PyObject* name_of(const char* text) { return PyUnicode_InternFromString(text); }

// Interned once and kept for good.
struct Names {
  PyObject* func = name_of("func");
  PyObject* args = name_of("args");
  PyObject* kwargs = name_of("kwargs");
  PyObject* key = name_of("key");
  PyObject* target = name_of("target");
  PyObject* value = name_of("value");
  PyObject* dependencies = name_of("dependencies");
  PyObject* call = name_of("__call__");
};

const Names& names() {
  static const Names* all = new Names;
  return *all;
}

py::object steal(PyObject* object) { return py::reinterpret_steal<py::object>(object); }

bool is(py::handle object, const py::object& type) {
  return Py_TYPE(object.ptr()) == reinterpret_cast<PyTypeObject*>(type.ptr());
}

bool is_kind_of(py::handle object, const py::object& type) {
  return PyType_IsSubtype(Py_TYPE(object.ptr()), reinterpret_cast<PyTypeObject*>(type.ptr())) != 0;
}

// Null with KeyError set, as `values[key]`; a new reference.
PyObject* look_up(const Values& values, PyObject* key) {
  PyObject* found = PyDict_GetItemWithError(values.ptr(), key);
  if (found != nullptr) return Py_NewRef(found);
  if (PyErr_Occurred() == nullptr) PyErr_SetObject(PyExc_KeyError, key);
  return nullptr;
}

PyObject* look_up_attribute(const Values& values, py::handle node, PyObject* attribute) {
  const py::object key = steal(PyObject_GetAttr(node.ptr(), attribute));
  return key ? look_up(values, key.ptr()) : nullptr;
}

PyObject* evaluate(const NodeTypes& types, py::handle node, const Values& values);

// An argument of a task: a reference to another node, a node of its own, or itself.
PyObject* argument(const NodeTypes& types, PyObject* given, const Values& values) {
  if (is(given, types.task_ref)) return look_up_attribute(values, given, names().key);
  if (is_kind_of(given, types.graph_node)) return evaluate(types, given, values);
  if (is_kind_of(given, types.task_ref)) return look_up_attribute(values, given, names().key);
  return Py_NewRef(given);
}

// Empty with the error set where the task lacks something.
TaskCall read_call(py::handle task) {
  TaskCall call{steal(PyObject_GetAttr(task.ptr(), names().func)), steal(PyObject_GetAttr(task.ptr(), names().args)),
                steal(PyObject_GetAttr(task.ptr(), names().kwargs))};
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
  const py::object own = steal(PyObject_GetAttr(reinterpret_cast<PyObject*>(Py_TYPE(node.ptr())), names().call));
  const py::object tasks = steal(PyObject_GetAttr(types.task.ptr(), names().call));
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
  if (is(node, types.data_node)) return PyObject_GetAttr(node.ptr(), names().value);
  if (is(node, types.alias)) return look_up_attribute(values, node, names().target);
  if (is_called_as_task(types, node)) {
    const TaskCall call = read_call(node);
    return call.func ? call_guarded(types, call, values) : nullptr;
  }
  return in_python([&] { return PyObject_CallOneArg(node.ptr(), values.ptr()); });
}

}  // namespace

bool is_converted(const NodeTypes& types, py::handle graph) {
  if (!PyDict_CheckExact(graph.ptr())) return false;
  PyObject *key, *node;
  for (Py_ssize_t place = 0; PyDict_Next(graph.ptr(), &place, &key, &node) != 0;) {
    if (!is_kind_of(node, types.graph_node) || is_kind_of(node, types.alias)) return false;
  }
  return true;
}

py::object dependencies_of(py::handle node) {
  py::object found = steal(PyObject_GetAttr(node.ptr(), names().dependencies));
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
    : types_(&types), node_(py::reinterpret_borrow<py::object>(node)) {
  if (!is_called_as_task(types, node)) return;
  call_ = read_call(node);
  if (!call_.func) throw py::error_already_set();
  fused_ = unfuse(types, node, call_);
}
NodePlan::NodePlan(NodePlan&&) noexcept = default;
NodePlan::~NodePlan() = default;

// Null where the node is not a fused one, or does not look as Task.fuse makes them.
std::unique_ptr<NodePlan::Fused> NodePlan::unfuse(const NodeTypes& types, py::handle node, const TaskCall& call) {
  if (!is(node, types.task) || call.func.ptr() != types.execute_subgraph.ptr()) return nullptr;
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
    const py::object needs = dependencies_of(found);
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
  }
  if (fused->steps.size() != inner.size()) return nullptr;  // something beside the output: left to Dask
  for (auto [key, step] : last_use) {
    fused->steps[step.cast<std::size_t>()].forgotten.push_back(py::reinterpret_borrow<py::object>(key));
  }
  return fused;
}

PyObject* NodePlan::run(const Values& values) const {
  if (!call_.func) return evaluate(*types_, node_, values);
  if (!fused_) return call_guarded(*types_, call_, values);
  Guarded<Values> inside;
  for (std::size_t i = 0; i < fused_->inputs.size(); ++i) {
    const Guarded<py::object> value(steal(argument(*types_, fused_->given[i].ptr(), values)));
    if (!value || PyDict_SetItem(inside.ptr(), fused_->inputs[i].ptr(), value.ptr()) != 0) return nullptr;
  }
  for (const Fused::Step& step : fused_->steps) {
    const Guarded<py::object> value(steal(step.plan.run(inside)));
    if (!value) return nullptr;
    for (const py::object& key : step.forgotten) {
      if (in_python([&] { return PyDict_DelItem(inside.ptr(), key.ptr()); }) != 0) return nullptr;
    }
    if (PyDict_SetItem(inside.ptr(), step.key.ptr(), value.ptr()) != 0) return nullptr;
  }
  return look_up(inside, fused_->out.ptr());
}

}  // namespace composable
