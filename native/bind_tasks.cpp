// Groups of Python callables.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include <unistd.h>

#include "bind_tasks.h"
#include "gil.h"

namespace py = pybind11;

namespace composable {
namespace {

// Python handles Ctrl-C in the main thread only, between bytecodes; a native wait must look for it.
constexpr auto kSignalLook = std::chrono::milliseconds(20);
constexpr auto kLongSleep = std::chrono::seconds(10);

class PyTask final : public PythonTask {
 public:
  explicit PyTask(py::object callable) : callable_(std::move(callable)) {}

  void run() override {
    if (!call()) PyErr_WriteUnraisable(callable_.ptr());
    delete this;
  }

  bool run_raising() override {
    const bool done = call();
    delete this;
    return done;
  }

  void drop() noexcept override { delete this; }

  const py::object& callable() const noexcept { return callable_; }

 private:
  bool call() const {
    PyObject* result = PyObject_CallNoArgs(callable_.ptr());
    Py_XDECREF(result);
    return result != nullptr;
  }

  py::object callable_;
};

// The GIL is kept from one task of a group to the next: the interpreter shares it out by itself.
void execute(TaskGroup& group, Task* first, ThreadState& self) {
  if (closing()) {  // leaked: nobody may touch Python objects any more
    for (Task* task = first; task != nullptr; task = group.next(self)) {
    }
    return;
  }
  with_gil([&] {
    for (Task* task = first; task != nullptr; task = group.next(self)) {
      TaskScope scope(group.arena(), self);
      task->run();
    }
  });
}

}  // namespace

bool help_group(TaskGroup& group, const std::function<bool()>& stop, bool run, std::optional<double> timeout) {
  ThreadState& self = this_thread();
  Arena& arena = Arena::instance();
  HelpScope scope(arena, self);
  const bool main_thread = gettid() == getpid();
  const auto limit = timeout ? Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                                  std::chrono::duration<double>(*timeout))
                             : Clock::time_point::max();
  bool idle = false;
  std::exception_ptr error;
  try {
    for (;;) {
      const std::uint64_t seen = group.finished();
      if (stop() || Clock::now() >= limit) break;
      if (run) {
        if (Task* task = group.claim(self)) {
          {
            TaskScope scope(arena, self);
            if (!static_cast<PythonTask*>(task)->run_raising()) error = std::make_exception_ptr(py::error_already_set());
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
        state = group.wait(self, run, seen, deadline);
      }
      if (state == TaskGroup::State::idle) {
        idle = true;
        break;
      }
      if (main_thread && PyErr_CheckSignals() != 0) throw py::error_already_set();
    }
  } catch (abi::__forced_unwind&) {  // the interpreter ended under a thread of the program
    throw;
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
  return help_group(group, [&] { return !check.is_none() && check().cast<bool>(); }, run, timeout);
}

void drop_queued(TaskGroup& group, const py::object& each) {
  for (Task* task : group.take_queued()) {
    auto* dropped = static_cast<PyTask*>(task);
    if (!each.is_none()) {
      if (PyObject* result = PyObject_CallOneArg(each.ptr(), dropped->callable().ptr())) {
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
  void enter() {
    if (task_) throw std::runtime_error("this task() context is in use already; make one per block");
    if (this_thread().task_depth > 0) return;
    Arena& arena = Arena::instance();
    GilAway away;
    task_.emplace(arena, this_thread());
    thread_ = &this_thread();
  }

  void exit() {
    if (!task_) return;
    if (thread_ != &this_thread()) throw std::runtime_error("a task() context must be left by the thread that entered it");
    GilAway away;
    task_.reset();
  }

 private:
  std::optional<ProgramTask> task_;
  ThreadState* thread_ = nullptr;
};

}  // namespace

void register_tasks(py::module_& module) {
  TaskGroup::execute = execute;
  py::class_<TaskContext>(module, "TaskContext")
      .def(py::init<>())
      .def("__enter__", &TaskContext::enter)
      .def("__exit__", [](TaskContext& context, const py::args&) { context.exit(); });
  py::class_<TaskGroup, std::shared_ptr<TaskGroup>>(module, "TaskGroup")
      .def(py::init([](int limit) { return std::make_shared<TaskGroup>(Arena::instance(), limit); }), py::arg("limit"))
      .def("submit",
           [](TaskGroup& group, py::object callable) { group.submit(new PyTask(std::move(callable))); },
           py::arg("callable"))
      .def("help", &help, py::arg("check") = py::none(), py::arg("run") = true, py::arg("timeout") = py::none())
      .def("drop_queued", &drop_queued, py::arg("each") = py::none())
      .def("nudge", &TaskGroup::nudge)
      .def_property("limit", &TaskGroup::limit, &TaskGroup::set_limit)
      .def_property_readonly("queued", [](TaskGroup& group) { return group.load().queued; })
      .def_property_readonly("active", [](TaskGroup& group) { return group.load().active; });
}

}  // namespace composable
