#include "gil.h"

#include <mutex>
#include <new>

#include <pthread.h>

#include "bind_threading.h"

namespace composable {
namespace {

#if PY_VERSION_HEX < 0x030C0000
// CPython makes a thread's state under a lock of its runtime, without the GIL. A child forked at that moment finds the lock
// taken, and before 3.12 PyOS_AfterFork_Child waits for it before it makes it anew: the child hangs. So nobody forks then.
std::mutex making;

void lock_making() { making.lock(); }
void unlock_making() { making.unlock(); }
void renew_making() { new (&making) std::mutex; }
#endif

}  // namespace

int keep_forks_apart() noexcept {
#if PY_VERSION_HEX < 0x030C0000
  return pthread_atfork(lock_making, unlock_making, renew_making);
#else
  return 0;  // from 3.13 on os.fork() holds that lock itself, and would wait here for a thread that waits for it
#endif
}

bool closing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return !Py_IsInitialized() || Py_IsFinalizing();
#else
  return !Py_IsInitialized() || _Py_IsFinalizing();
#endif
}

void attach_thread() {
  if (closing()) return;
  // Not by PyGILState_Ensure(), which would then wait for the GIL with `making` held, while who forks has the GIL.
#if PY_VERSION_HEX < 0x030C0000
  std::lock_guard making_one(making);
#endif
  PyThreadState_New(PyInterpreterState_Main());  // released in detach_thread()
}

void detach_thread() {
  PyThreadState* state = PyGILState_GetThisThreadState();
  if (closing() || state == nullptr) return;
  in_python([&] {
    PyEval_RestoreThread(state);
    leave_threading();
    PyGILState_Release(PyGILState_UNLOCKED);
  });
}

}  // namespace composable
