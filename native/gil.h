// The one place where the GIL changes hands, so that the order is visible: no lock of the core is held while the
// GIL is awaited; code that has the GIL may take such a lock, for it is held for list operations only.
#pragma once

#include <Python.h>

#include <unistd.h>

#include <cxxabi.h>

#include <utility>

namespace composable {

/// The interpreter is ending: threads of ours run no Python any more. Needs no GIL.
bool closing() noexcept;

/// Runs `code`, which has the GIL and may lose it on its way, and returns what it returns.
///
/// CPython before 3.14 ends a thread that asks for the GIL after finalisation began by pthread_exit, which unwinds
/// through our frames: it would release Python's objects there without the GIL, and take the process down in frames of
/// oneTBB or in a destructor. Such a thread stays asleep instead, as it does in newer versions. So between a call into
/// the interpreter that may run code of the program's and any frame of ours that holds objects there must be one of
/// these.
template <typename Code>
auto in_python(Code&& code) -> decltype(code()) {
  try {
    return code();
  } catch (abi::__forced_unwind&) {
    for (;;) pause();
  }
}

/// Runs `code` with the GIL in a thread of ours.
template <typename Code>
void with_gil(Code&& code) {
  in_python([&] {
    const PyGILState_STATE state = PyGILState_Ensure();
    code();
    PyGILState_Release(state);
  });
}

/// Gives the GIL away for a scope, in a thread that has it.
class GilAway {
 public:
  GilAway() : state_(PyEval_SaveThread()) {}
  ~GilAway() {
    in_python([this] { PyEval_RestoreThread(state_); });
  }
  GilAway(const GilAway&) = delete;
  GilAway& operator=(const GilAway&) = delete;

 private:
  PyThreadState* state_;
};

/// An object of pybind11's that may be the last to hold what it holds, whose end may run code of the program's.
template <typename Object>
class Guarded : public Object {
 public:
  Guarded() = default;
  Guarded(Object&& object) noexcept : Object(std::move(object)) {}
  Guarded(Guarded&& other) noexcept = default;
  Guarded& operator=(Guarded&& other) noexcept {
    Guarded old(std::move(*this));
    Object::operator=(std::move(other));
    return *this;
  }
  ~Guarded() {
    in_python([this] { Py_XDECREF(this->release().ptr()); });
  }
};

/// Called once, when the module is loaded: no fork comes between while attach_thread() makes a state, where that would
/// be felt.
int keep_forks_apart() noexcept;

/// Hooks for the core's own threads: they keep one thread state for life, so that thread-locals survive from task
/// to task and an error raised in a kernel is still there when the chunk ends.
void attach_thread();
void detach_thread();

}  // namespace composable
