// A Dask graph in the arena: Graph says which node is next, the arena which thread runs it, Python what it does.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <string>

#include "bind_error.h"
#include "bind_graph_reader.h"
#include "bind_nodes.h"
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
  Array<py::object> keys_;
  Array<NodePlan> plans_;              // of data nodes: unused
  Array<PyObject*> needed_;            // keys: what each node depends on, as the node itself names it
  Array<py::object> needed_sets_;      // keep them alive
  Array<Guarded<py::object>> values_;  // null before it is known and after it was released
  Array<Graph::Node> wanted_;
  std::unique_ptr<Graph> graph_;
  const std::shared_ptr<TaskGroup> group_;
  py::object context_;
  std::atomic<Graph::Node> nearly_{-1};  // may become ready soon
  bool failed_ = false;                  // with the GIL, as error_
  Guarded<py::object> error_;            // the first, until compute() takes it
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

Computation::Computation(const NodeTypes& types, const py::dict& graph, const py::iterable& wanted, int limit)
    : types_(types), group_(std::make_shared<TaskGroup>(Arena::instance(), limit)) {
  GraphReader read(types_, graph);
  Array<std::int64_t> priorities = read.order();
  for (py::handle key : wanted) {
    if (const Graph::Node node = read.find(key); node >= 0) wanted_.push_back(node);
  }
  graph_ = std::make_unique<Graph>(std::move(read.dependencies), std::move(read.kinds), priorities, wanted_);
  keys_ = std::move(read.keys);
  plans_ = std::move(read.plans);
  needed_ = std::move(read.needed);
  needed_sets_ = std::move(read.needed_sets);
  values_ = std::move(read.values);
}

PyObject* Computation::call(Graph::Node node) const {
  const Graph::Lists& dependencies = graph_->dependencies();
  const Graph::Node* first = dependencies.begin(node);
  const std::span<PyObject* const> needed(needed_.data() + (first - dependencies.nodes.data()),
                                          static_cast<std::size_t>(dependencies.end(node) - first));
  const Values values(needed, first, values_.data());
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
  Graph::Node coming[3];
  const Graph::Node node = graph_->take(coming);
  if (node < 0) return;
  if (coming[2] >= 0) plans_[static_cast<std::size_t>(coming[2])].prefetch_node();
  if (coming[1] >= 0) plans_[static_cast<std::size_t>(coming[1])].prefetch_call();
  if (coming[0] >= 0) plans_[static_cast<std::size_t>(coming[0])].prefetch_arguments();
  if (const Graph::Node nearly = nearly_.load(std::memory_order_relaxed); nearly >= 0) {
    nearly_.store(-1, std::memory_order_relaxed);
    plans_[static_cast<std::size_t>(nearly)].prefetch_call();
  }
  PyObject* result = trace::on() ? call_recorded(node) : call(node);
  if (result == nullptr) {
    fail(fetch_error());
    return;
  }
  values_[static_cast<std::size_t>(node)] = py::reinterpret_steal<py::object>(result);
  const Graph::Outcome outcome = graph_->finish(node);
  if (outcome.nearly >= 0) {
    plans_[static_cast<std::size_t>(outcome.nearly)].prefetch_node();
    nearly_.store(outcome.nearly, std::memory_order_relaxed);
  }
  // Outside every lock: destructors run code of the user's.
  for (Graph::Node gone : outcome.released) {
    const Guarded<py::object> last(std::move(values_[static_cast<std::size_t>(gone)]));
  }
  if (outcome.ready > 0) queue(outcome.ready, true);
}

// The first error stops the graph; nodes that run now end unseen.
void Computation::fail(PyObject* error) {
  Guarded<py::object> held(py::reinterpret_steal<py::object>(error));
  if (failed_) return;
  failed_ = true;
  error_ = std::move(held);
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
          *group_, [this] { return failed_; }, in_task ? TaskGroup::Watch::work : TaskGroup::Watch::nudges,
          std::nullopt);
    } catch (...) {
      give_up();
      throw;
    }
  }
  if (error_) {
    restore_error(error_.release().ptr());
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
                       py::object alias, py::object execute_subgraph, bool plain_dependencies) {
             return NodeTypes{graph_node, data_node, task, task_ref, alias, execute_subgraph, plain_dependencies};
           }),
           py::kw_only(), py::arg("graph_node"), py::arg("data_node"), py::arg("task"), py::arg("task_ref"),
           py::arg("alias"), py::arg("execute_subgraph"), py::arg("plain_dependencies"));
  module.def("is_converted", &is_converted, py::arg("types"), py::arg("graph"));
  py::class_<Owner>(module, "Computation")
      .def(py::init<const NodeTypes&, const py::dict&, const py::iterable&, int>(), py::arg("types"), py::arg("graph"),
           py::arg("wanted"), py::arg("limit"))
      .def("compute", &Owner::compute);
}

}  // namespace composable
