// A Python error as an object, taken off the calling thread and given back: CPython changed the functions in 3.12. With
// the GIL.
#pragma once

#include <Python.h>

namespace composable {

/// Takes the pending error off the calling thread; a new reference, its traceback in it.
inline PyObject* fetch_error() {
#if PY_VERSION_HEX >= 0x030C0000
  return PyErr_GetRaisedException();
#else
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  PyErr_NormalizeException(&type, &value, &trace);
  if (trace != nullptr) PyException_SetTraceback(value, trace);
  Py_XDECREF(type);
  Py_XDECREF(trace);
  return value;
#endif
}

/// Makes `error` the calling thread's; steals the reference.
inline void restore_error(PyObject* error) {
#if PY_VERSION_HEX >= 0x030C0000
  PyErr_SetRaisedException(error);
#else
  PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(error))), error, PyException_GetTraceback(error));
#endif
}

}  // namespace composable
