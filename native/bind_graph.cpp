// A Dask graph in the arena: Graph says which node is next, the arena which thread runs it, Python what it does.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>

#include "bind_error.h"
#include "bind_nodes.h"
#include "bind_order.h"
#include "bind_tasks.h"
#include "bind_trace.h"
#include "gil.h"
#include "graph.h"
#include "trace.h"

namespace py = pybind11;

namespace composable {
namespace {

// Everything of one computation. Its owner and every entry in the queue hold a reference.
class Computation {
 public:
  Computation(const NodeTypes& types, const py::dict& graph, const py::iterable& wanted, int limit);
  Computation(const Computation&) = delete;

  void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  /// Takes the node that is next now, if there is one, and runs it.
  void run_next();
  /// Runs the graph and gives the wanted values by key. Raises the first error.
  py::dict compute();

 private:
  ~Computation() = default;
  void queue(int turns, bool kept);
  PyObject* call(Graph::Node node) const;
  [[gnu::cold]] PyObject* call_recorded(Graph::Node node) const;
  void fail(PyObject* error);
  void give_up();
  std::string tell_missing(Graph::Node missing) const;

  std::atomic<int> references_{1};
  const NodeTypes types_;
  std::vector<py::object> keys_;
  std::vector<NodePlan> plans_;              // of data and missing nodes: unused
  std::vector<Guarded<py::object>> values_;  // null before it is known and after it was released
  std::vector<Graph::Node> wanted_;
  std::unique_ptr<Graph> graph_;
  const std::shared_ptr<TaskGroup> group_;
  py::object context_;
  std::atomic<PyObject*> error_{nullptr};
};

// What is queued: a turn for every ready node. Whose turn it is is decided when it runs, as late as possible.
class Turn final : public PythonTask {
 public:
  explicit Turn(Computation& computation) : PythonTask(&computation), computation_(computation) {
    computation_.retain();
  }

  void run() override {
    computation_.run_next();
    end(1);
  }
  bool run_raising() override {
    run();
    return true;  // what a node raises is the graph's, not its thread's
  }
  void drop() noexcept override { end(queued()); }

 private:
  friend std::default_delete<Turn>;
  ~Turn() { computation_.release(); }
  void end(int turns) noexcept {
    if (release(turns)) delete this;
  }
  Computation& computation_;
};

void Computation::queue(int turns, bool kept) {
  auto turn = std::make_unique<Turn>(*this);
  if (group_->submit(turn.get(), turns, kept)) static_cast<void>(turn.release());
}

// A large graph does not fit into the caches: what is looked at a few nodes later is asked for now.
constexpr std::size_t kAhead = 8;

void prefetch(const void* object) noexcept {
  const auto* bytes = static_cast<const char*>(object);
  __builtin_prefetch(bytes);
  __builtin_prefetch(bytes + 64);
}

// The dependencies of a graph's nodes in order, each asked for `kAhead` nodes before it is given.
class DependencyReader {
 public:
  explicit DependencyReader(const std::vector<PyObject*>& nodes) : nodes_(nodes) {}

  py::object operator()(std::size_t node) {
    if (node + 2 * kAhead < nodes_.size()) prefetch(nodes_[node + 2 * kAhead]);
    for (; read_ < nodes_.size() && read_ <= node + kAhead; ++read_) {
      py::object& found = ahead_[read_ % std::size(ahead_)] = dependencies_of(nodes_[read_]);
      prefetch(found.ptr());
      prefetch(reinterpret_cast<char*>(found.ptr()) + 128);
    }
    return std::move(ahead_[node % std::size(ahead_)]);
  }

 private:
  const std::vector<PyObject*>& nodes_;
  py::object ahead_[kAhead + 1];
  std::size_t read_ = 0;
};

Computation::Computation(const NodeTypes& types, const py::dict& graph, const py::iterable& wanted, int limit)
    : types_(types), group_(std::make_shared<TaskGroup>(Arena::instance(), limit)) {
  const std::size_t count = graph.size();
  keys_.reserve(count);
  plans_.reserve(count);
  std::vector<Graph::Kind> kinds;
  kinds.reserve(count);
  std::vector<std::uint8_t> is_task;
  is_task.reserve(count);
  Graph::Lists dependencies;
  py::dict nodes;
  std::vector<PyObject*> all;
  all.reserve(count);
  for (auto [key, node] : graph) {
    nodes[key] = py::int_(keys_.size());
    keys_.push_back(py::reinterpret_borrow<py::object>(key));
    all.push_back(node.ptr());
  }
  DependencyReader read_dependencies(all);
  for (std::size_t number = 0; number < count; ++number) {
    const py::handle node = all[number];
    const py::object needs = read_dependencies(number);
    plans_.emplace_back(types_, node);
    const bool data = py::isinstance(node, types_.data_node);
    kinds.push_back(data ? Graph::Kind::data : Graph::Kind::task);
    is_task.push_back(data ? 0 : 1);
    values_.push_back(data ? py::object(node.attr("value")) : py::object());
    if (!data) {
      for (py::handle needed : needs) {
        PyObject* place = PyDict_GetItemWithError(nodes.ptr(), needed.ptr());
        if (place == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
        if (place == nullptr) {  // beyond the graph: numbered behind it
          const py::int_ more(nodes.size());
          nodes[needed] = more;
          keys_.push_back(py::reinterpret_borrow<py::object>(needed));
          place = more.ptr();
        }
        dependencies.nodes.push_back(static_cast<Graph::Node>(PyLong_AsLong(place)));
      }
    }
    dependencies.close();
  }
  py::tuple keys(keys_.size());
  for (std::size_t i = 0; i < keys_.size(); ++i) keys[i] = keys_[i];
  KeyStrings texts(std::move(keys));
  std::vector<std::int64_t> priorities = order({dependencies.offsets, dependencies.nodes, is_task}, texts);
  while (kinds.size() < keys_.size()) {
    priorities.push_back(static_cast<std::int64_t>(kinds.size()));
    kinds.push_back(Graph::Kind::missing);
    values_.emplace_back();
    dependencies.close();
  }
  for (py::handle key : wanted) {
    if (PyObject* place = PyDict_GetItemWithError(nodes.ptr(), key.ptr())) {
      wanted_.push_back(static_cast<Graph::Node>(PyLong_AsLong(place)));
    } else if (PyErr_Occurred() != nullptr) {
      throw py::error_already_set();
    }
  }
  graph_ = std::make_unique<Graph>(std::move(dependencies), std::move(kinds), priorities, wanted_);
}

PyObject* Computation::call(Graph::Node node) const {
  const Graph::Lists& dependencies = graph_->dependencies();
  Guarded<Values> values;
  for (const Graph::Node* needed = dependencies.begin(node); needed != dependencies.end(node); ++needed) {
    const auto at = static_cast<std::size_t>(*needed);
    if (PyDict_SetItem(values.ptr(), keys_[at].ptr(), values_[at].ptr()) != 0) return nullptr;
  }
  // A copy for each task: what it changes is seen by nobody else.
  const auto context = py::reinterpret_steal<py::object>(PyContext_Copy(context_.ptr()));
  if (!context || PyContext_Enter(context.ptr()) != 0) return nullptr;
  PyObject* result = plans_[static_cast<std::size_t>(node)].run(values);
  if (result != nullptr) {
    if (PyContext_Exit(context.ptr()) != 0) Py_CLEAR(result);
  } else {
    PyObject* error = fetch_error();
    if (PyContext_Exit(context.ptr()) != 0) PyErr_Clear();
    restore_error(error);
  }
  return result;
}

PyObject* Computation::call_recorded(Graph::Node node) const {
  const std::uintptr_t label = keep_label(keys_[static_cast<std::size_t>(node)].ptr());
  const trace::Scope span(this_thread(), trace::Kind::node, label);
  return call(node);
}

void Computation::run_next() {
  Graph::Node next;
  const Graph::Node node = graph_->take(next);
  if (node < 0) return;
  if (next >= 0) plans_[static_cast<std::size_t>(next)].prefetch();
  PyObject* result = trace::on() ? call_recorded(node) : call(node);
  if (result == nullptr) {
    fail(fetch_error());
    return;
  }
  values_[static_cast<std::size_t>(node)] = py::reinterpret_steal<py::object>(result);
  std::vector<Graph::Node> released;
  const int ready = graph_->finish(node, released);
  // Outside every lock: destructors run code of the user's.
  for (Graph::Node gone : released) const Guarded<py::object> last(std::move(values_[static_cast<std::size_t>(gone)]));
  if (ready > 0) queue(ready, true);
}

// The first error stops the graph; nodes that run now end unseen.
void Computation::fail(PyObject* error) {
  PyObject* none = nullptr;
  if (!error_.compare_exchange_strong(none, error, std::memory_order_acq_rel)) {
    Py_DECREF(error);
    return;
  }
  give_up();
  group_->nudge();
}

void Computation::give_up() {
  graph_->stop();
  for (Task* task : group_->take_queued()) task->drop();
}

std::string Computation::tell_missing(Graph::Node missing) const {
  py::set dependents;
  const Graph::Lists& lists = graph_->dependencies();
  for (Graph::Node node = 0; node < lists.size(); ++node) {
    if (std::find(lists.begin(node), lists.end(node), missing) != lists.end(node)) {
      dependents.add(keys_[static_cast<std::size_t>(node)]);
    }
  }
  const auto text = [](const py::object& object) { return py::str(object).cast<std::string>(); };
  return "Missing dependency " + text(keys_[static_cast<std::size_t>(missing)]) + " for dependents " + text(dependents);
}

py::dict Computation::compute() {
  if (const Graph::Node missing = graph_->missing(); missing >= 0) throw py::value_error(tell_missing(missing));
  if (!graph_->accessible()) throw py::value_error("Found no accessible jobs in dask");
  context_ = py::reinterpret_steal<py::object>(PyContext_CopyCurrent());
  if (const int ready = graph_->ready(); ready > 0) {
    static_cast<void>(deepen());
    refuse_while_closing();
    const bool in_task = this_thread().task_depth > 0;
    queue(ready, in_task);
    try {
      // A thread of the program sleeps, as under Dask's threads: Ctrl-C and errors reach it at once. One that is in a
      // task runs nodes of this graph meanwhile.
      help_group(
          *group_, [this] { return error_.load(std::memory_order_acquire) != nullptr; },
          in_task ? TaskGroup::Watch::work : TaskGroup::Watch::nudges, std::nullopt);
    } catch (...) {
      give_up();
      throw;
    }
  }
  if (PyObject* error = error_.exchange(nullptr, std::memory_order_acq_rel)) {
    restore_error(error);
    throw py::error_already_set();
  }
  if (!graph_->complete()) {
    throw std::runtime_error("the process was forked while this graph was computed: its tasks stayed with the parent");
  }
  py::dict found;
  for (Graph::Node node : wanted_) {
    const auto at = static_cast<std::size_t>(node);
    if (values_[at]) found[keys_[at]] = values_[at];
  }
  return found;
}

// What Python holds.
class Owner {
 public:
  Owner(const NodeTypes& types, const py::dict& graph, const py::iterable& wanted, int limit)
      : computation_(new Computation(types, graph, wanted, limit)) {}
  ~Owner() { computation_->release(); }
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;
  py::dict compute() { return computation_->compute(); }

 private:
  Computation* const computation_;
};

}  // namespace

void register_graph(py::module_& module) {
  py::class_<NodeTypes>(module, "NodeTypes")
      .def(py::init([](py::object graph_node, py::object data_node, py::object task, py::object task_ref,
                       py::object alias, py::object execute_subgraph) {
             return NodeTypes{graph_node, data_node, task, task_ref, alias, execute_subgraph};
           }),
           py::kw_only(), py::arg("graph_node"), py::arg("data_node"), py::arg("task"), py::arg("task_ref"),
           py::arg("alias"), py::arg("execute_subgraph"));
  module.def("is_converted", &is_converted, py::arg("types"), py::arg("graph"));
  py::class_<Owner>(module, "Computation")
      .def(py::init<const NodeTypes&, const py::dict&, const py::iterable&, int>(), py::arg("types"), py::arg("graph"),
           py::arg("wanted"), py::arg("limit"))
      .def("compute", &Owner::compute);
}

}  // namespace composable
