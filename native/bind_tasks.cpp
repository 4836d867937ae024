// Groups of Python callables.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <utility>

#include <unistd.h>

#include "bind_tasks.h"
#include "bind_threading.h"
#include "bind_trace.h"
#include "gil.h"
#include "trace.h"

namespace py = pybind11;

namespace composable {
namespace {

// Python handles Ctrl-C in the main thread only, between bytecodes; a native wait must look for it.
constexpr auto kSignalLook = std::chrono::milliseconds(20);
constexpr auto kLongSleep = std::chrono::seconds(10);

// A callable that gives False has nothing left to do: the runs that it is still queued for are taken back.
class PyTask final : public PythonTask {
 public:
  PyTask(py::object callable, TaskGroup& group)
      : PythonTask(callable.ptr()), callable_(std::move(callable)), group_(group) {}

  void run() override {
    if (!call()) PyErr_WriteUnraisable(callable_.ptr());
    end(1);
  }

  bool run_raising() override {
    const bool done = call();
    end(1);
    return done;
  }

  void drop() noexcept override { end(queued()); }

  const py::object& callable() const noexcept { return callable_; }

  static void withdraw(TaskGroup& group, const py::object& callable) {
    for (Task* task : group.take_queued(callable.ptr())) task->drop();
  }

 private:
  bool call() const {
    PyObject* result =
        trace::on() ? call_recorded() : in_python([this] { return PyObject_CallNoArgs(callable_.ptr()); });
    if (result == Py_False) withdraw(group_, callable_);
    in_python([result] { Py_XDECREF(result); });
    return result != nullptr;
  }

  // The label first: a callable may let go of what it runs.
  [[gnu::cold]] PyObject* call_recorded() const {
    ThreadState& self = this_thread();
    const std::uintptr_t outside = std::exchange(self.trace_label, 0);
    trace::Scope span(self, trace::Kind::task, label_of(callable_.ptr()));
    PyObject* result = in_python([this] { return PyObject_CallNoArgs(callable_.ptr()); });
    if (const std::uintptr_t later = std::exchange(self.trace_label, outside); later != 0) span.rename(later);
    return result;
  }

  void end(int runs) noexcept {
    if (release(runs)) delete this;
  }

  const Guarded<py::object> callable_;
  TaskGroup& group_;  // lives while it has tasks
};

void submit(TaskGroup& group, py::object callable, int runs) {
  if (runs < 1) throw std::invalid_argument("a callable is submitted for at least 1 run, not " + std::to_string(runs));
  refuse_while_closing();
  auto task = std::make_unique<PyTask>(std::move(callable), group);
  if (group.submit(task.get(), runs)) task.release();
}

// The GIL is kept from one task of a group to the next: the interpreter shares it out by itself.
void execute(TaskGroup& group, Task* first, ThreadState& self) {
  if (closing()) {  // leaked: nobody may touch Python objects any more
    for (Task* task = first; task != nullptr; task = group.next(self)) {
    }
    return;
  }
  with_gil([&] {
    InThreading in_threading;
    for (Task* task = first; task != nullptr; task = group.next(self)) {
      NestingScope nesting(self, group.nesting(), group.limit_inside_tasks());
      TaskScope scope(group.arena(), self);
      task->run();
    }
  });
}

}  // namespace

void refuse_while_closing() {
  if (closing()) throw std::runtime_error("cannot schedule new tasks while the interpreter ends");
}

int deepen() {
  const int inside = this_thread().nesting + 1;
  if (const int limit = Py_GetRecursionLimit(); inside > limit) {
    PyErr_Format(PyExc_RecursionError, "tasks wait for tasks more than %d deep, Python's recursion limit", limit);
    throw py::error_already_set();
  }
  return inside;
}

bool help_group(TaskGroup& group, const std::function<bool()>& stop, TaskGroup::Watch watch,
                std::optional<double> timeout) {
  const bool run = watch == TaskGroup::Watch::work;
  ThreadState& self = this_thread();
  Arena& arena = Arena::instance();
  HelpScope scope(arena, self);
  const bool main_thread = gettid() == getpid();
  const auto limit =
      timeout ? Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*timeout))
              : Clock::time_point::max();
  bool idle = false;
  std::exception_ptr error;
  try {
    for (std::optional<std::uint64_t> checked;;) {
      const std::uint64_t seen = group.seen(watch);
      if (checked != seen) {
        checked = seen;
        if (stop && stop()) break;
      }
      if (timeout && Clock::now() >= limit) break;
      if (run) {
        if (Task* task = group.claim(self)) {
          {
            NestingScope nesting(self, group.nesting(), group.limit_inside_tasks());
            TaskScope scope(arena, self);
            if (!static_cast<PythonTask*>(task)->run_raising())
              error = std::make_exception_ptr(py::error_already_set());
          }
          group.ended(self);
          if (error) break;
          continue;
        }
      }
      TaskGroup::State state;
      {
        GilAway away;
        auto deadline = std::min(limit, Clock::now() + (main_thread ? Clock::duration(kSignalLook) : kLongSleep));
        state = group.wait(self, watch, seen, deadline);
      }
      if (state == TaskGroup::State::idle) {
        idle = true;
        break;
      }
      if (main_thread && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
  } catch (...) {
    error = std::current_exception();
  }
  if (scope.must_wait()) {
    GilAway away;
    scope.restore();
  } else {
    scope.restore();
  }
  if (error) std::rethrow_exception(error);
  return idle;
}

namespace {

bool help(TaskGroup& group, const py::object& check, bool run, std::optional<double> timeout) {
  using Watch = TaskGroup::Watch;
  if (check.is_none()) return help_group(group, nullptr, run ? Watch::work : Watch::nudges, timeout);
  return help_group(
      group, [&] { return in_python([&] { return check().cast<bool>(); }); }, run ? Watch::work : Watch::ends, timeout);
}

void drop_queued(TaskGroup& group, const py::object& each) {
  for (Task* task : group.take_queued()) {
    auto* dropped = static_cast<PyTask*>(task);
    if (!each.is_none()) {
      if (PyObject* result = in_python([&] { return PyObject_CallOneArg(each.ptr(), dropped->callable().ptr()); })) {
        Py_DECREF(result);
      } else {
        PyErr_WriteUnraisable(each.ptr());
      }
    }
    dropped->drop();
  }
}

// The context manager behind composable_threads.task(): belongs to the thread that entered it.
class TaskContext {
 public:
  // Without an end it is left here; or, if another thread does this, when its own one ends.
  ~TaskContext() {
    if (task_ && !task_->abandoned() && thread_ != &this_thread()) static_cast<void>(task_.release());
  }

  void enter() {
    if (task_) throw std::runtime_error("this task() context is in use already; make one per block");
    if (this_thread().task_depth > 0) return;
    Arena& arena = Arena::instance();
    GilAway away;
    task_ = std::make_unique<ProgramTask>(arena, this_thread());
    thread_ = &this_thread();
  }

  void exit() {
    if (!task_) return;
    if (task_->abandoned() || thread_ != &this_thread())
      throw std::runtime_error("a task() context must be left by the thread that entered it");
    GilAway away;
    task_.reset();
  }

 private:
  std::unique_ptr<ProgramTask> task_;
  ThreadState* thread_ = nullptr;
};

}  // namespace

void register_tasks(py::module_& module) {
  TaskGroup::execute = execute;
  module.def("deepen", &deepen);
  module.def("nest", [](int nesting) { this_thread().nesting = nesting; }, py::arg("nesting"));
  py::class_<TaskContext>(module, "TaskContext")
      .def(py::init<>())
      .def("__enter__", &TaskContext::enter)
      .def("__exit__", [](TaskContext& context, const py::args&) { context.exit(); });
  py::class_<TaskGroup, std::shared_ptr<TaskGroup>>(module, "TaskGroup")
      .def(py::init([](int limit) { return std::make_shared<TaskGroup>(Arena::instance(), limit); }), py::arg("limit"))
      .def("submit", &submit, py::arg("callable"), py::arg("runs") = 1)
      .def("withdraw", &PyTask::withdraw, py::arg("callable"))
      .def("help", &help, py::arg("check") = py::none(), py::arg("run") = true, py::arg("timeout") = py::none())
      .def("drop_queued", &drop_queued, py::arg("each") = py::none())
      .def("nudge", &TaskGroup::nudge)
      .def("settle_load", &TaskGroup::settle_load, py::arg("goes_on") = true)
      .def_property("limit", &TaskGroup::limit, &TaskGroup::set_limit)
      .def_property_readonly("queued", [](TaskGroup& group) { return group.load().queued; })
      .def_property_readonly("active", [](TaskGroup& group) { return group.load().active; });
}

}  // namespace composable
