// The addresses of the Numba ABI, and what happens to a Python error that a kernel raised on a worker.
#include <pybind11/pybind11.h>

#include <unistd.h>

#include "bind_error.h"
#include "bind_interrupt.h"
#include "gil.h"
#include "numba_abi.h"
#include "region.h"
#include "thread_state.h"

namespace py = pybind11;

namespace composable {
namespace {

// Reads the calling thread's own error indicator without the GIL: no other thread writes it.
bool pending() noexcept {
  const PyThreadState* state = PyGILState_GetThisThreadState();
  if (state == nullptr) return false;
#if PY_VERSION_HEX >= 0x030C0000
  return state->current_exception != nullptr;
#else
  return state->curexc_type != nullptr;
#endif
}

void* take() noexcept {
  PyObject* error = nullptr;
  with_gil([&] { error = fetch_error(); });
  return error;
}

void give(void* error) noexcept {
  with_gil([&] {
    if (PyErr_Occurred() == nullptr) {
      restore_error(static_cast<PyObject*>(error));
    } else {
      Py_DECREF(static_cast<PyObject*>(error));
    }
  });
}

void drop(void* error) noexcept {
  with_gil([&] { Py_DECREF(static_cast<PyObject*>(error)); });
}

// Signal handlers run in the main thread only. They run here in the middle of a call of the program's, as the interpreter
// has them run in its own long calls.
bool interrupted(const ThreadState& caller) noexcept {
  if (caller.worker || caller.tid != getpid() || closing()) return false;
  watch_interrupts();
  if (!take_interrupt()) return false;
  bool raised = false;
  with_gil([&] { raised = PyErr_Occurred() == nullptr && PyErr_CheckSignals() != 0; });
  return raised;
}

template <typename Function>
void address(py::module_& module, const char* name, Function* function) {
  module.attr(name) = py::reinterpret_steal<py::object>(PyLong_FromVoidPtr(reinterpret_cast<void*>(function)));
}

}  // namespace

void register_numba(py::module_& module) {
  watch_interrupts();
  Region::interrupted = interrupted;
  numba::errors = {.pending = pending, .take = take, .give = give, .drop = drop};
  address(module, "launch_threads", numba::composable_launch_threads);
  address(module, "synchronize", numba::composable_synchronize);
  address(module, "ready", numba::composable_ready);
  address(module, "add_task", numba::composable_add_task);
  address(module, "parallel_for", numba::composable_parallel_for);
  address(module, "do_scheduling_signed", numba::composable_do_scheduling);
  address(module, "do_scheduling_unsigned", numba::composable_do_scheduling);
  address(module, "set_num_threads", numba::composable_set_num_threads);
  address(module, "get_num_threads", numba::composable_get_num_threads);
  address(module, "get_thread_id", numba::composable_get_thread_id);
  address(module, "set_parallel_chunksize", numba::composable_set_parallel_chunksize);
  address(module, "get_parallel_chunksize", numba::composable_get_parallel_chunksize);
  address(module, "get_sched_size", numba::composable_get_sched_size);
  address(module, "allocate_sched", numba::composable_allocate_sched);
  address(module, "deallocate_sched", numba::composable_deallocate_sched);
  module.def("set_deterministic", &numba::set_deterministic, py::arg("on"));
  module.def("deterministic", &numba::deterministic);
}

}  // namespace composable
