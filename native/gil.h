// The one place where the GIL changes hands, so that the order is visible: no lock of the core is held while the
// GIL is awaited; code that has the GIL may take such a lock, for it is held for list operations only.
#pragma once

#include <Python.h>

#include <unistd.h>

#include <cxxabi.h>

namespace composable {

/// The interpreter is ending: threads of ours run no Python any more. Needs no GIL.
bool closing() noexcept;

/// Runs `code` with the GIL in a thread of ours.
///
/// CPython before 3.14 ends a thread that asks for the GIL after finalisation began by pthread_exit, which unwinds
/// through our frames and would take the process down in those of oneTBB. Such a thread stays asleep instead, as it
/// does in newer versions.
template <typename Code>
void with_gil(Code&& code) {
  try {
    const PyGILState_STATE state = PyGILState_Ensure();
    code();
    PyGILState_Release(state);
  } catch (abi::__forced_unwind&) {
    for (;;) pause();
  }
}

/// Gives the GIL away for a scope, in a thread that has it.
class GilAway {
 public:
  GilAway() : state_(PyEval_SaveThread()) {}
  ~GilAway() noexcept(false) { PyEval_RestoreThread(state_); }
  GilAway(const GilAway&) = delete;
  GilAway& operator=(const GilAway&) = delete;

 private:
  PyThreadState* state_;
};

/// Hooks for the core's own threads: they keep one thread state for life, so that thread-locals survive from task
/// to task and an error raised in a kernel is still there when the chunk ends.
void attach_thread();
void detach_thread();

}  // namespace composable
