#include "gil.h"

#include "bind_threading.h"

namespace composable {

bool closing() noexcept {
#if PY_VERSION_HEX >= 0x030D0000
  return !Py_IsInitialized() || Py_IsFinalizing();
#else
  return !Py_IsInitialized() || _Py_IsFinalizing();
#endif
}

void attach_thread() {
  if (closing()) return;
  in_python([] {
    PyGILState_Ensure();  // released in detach_thread()
    PyEval_SaveThread();
  });
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
