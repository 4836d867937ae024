#include "bind_threading.h"

#include <Python.h>

#include <pthread.h>

#include "gil.h"

namespace composable {
namespace {

struct Hook {
  // In threading: what threads to come are given. Its getters are Python, and whoever profiles would see them called.
  const char* set;
  const char* setter;  // in sys: gives it to the calling thread
};

constexpr Hook kTrace{"_trace_hook", "settrace"};
constexpr Hook kProfile{"_profile_hook", "setprofile"};

// What the worker was given last, and its entry in threading._active. Owned; a worker that never ends keeps them.
struct Given {
  PyObject* trace = nullptr;
  PyObject* profile = nullptr;
  PyObject* thread = nullptr;
};
thread_local Given given;

// A program may put anything into these modules; its mistakes are not the task's.
void tell(PyObject* about) { PyErr_WriteUnraisable(about); }

// Borrowed. Null before the program imports it.
PyObject* threading_module() {
  static PyObject* module = nullptr;
  if (module == nullptr) {
    PyObject* name = PyUnicode_FromString("threading");
    module = name == nullptr ? nullptr : PyImport_GetModule(name);
    Py_XDECREF(name);
    if (module == nullptr) PyErr_Clear();
  }
  return module;
}

void take_name(PyObject* threading) {
  char name[16];
  if (pthread_getname_np(pthread_self(), name, sizeof name) != 0) return;
  given.thread = PyObject_CallMethod(threading, "current_thread", nullptr);
  PyObject* text = given.thread == nullptr ? nullptr : PyUnicode_FromString(name);
  if (text == nullptr || PyObject_SetAttrString(given.thread, "name", text) != 0) tell(threading);
  Py_XDECREF(text);
}

void take(const Hook& hook, PyObject* threading, PyObject*& last) {
  PyObject* now = PyObject_GetAttrString(threading, hook.set);
  if (now == nullptr) {  // a Python that keeps it elsewhere
    PyErr_Clear();
    return;
  }
  if (now == (last == nullptr ? Py_None : last)) {
    Py_DECREF(now);
    return;
  }
  PyObject* setter = PySys_GetObject(hook.setter);  // borrowed
  PyObject* done = setter == nullptr ? nullptr : PyObject_CallOneArg(setter, now);
  if (done == nullptr && PyErr_Occurred() != nullptr) tell(now);
  Py_XDECREF(done);
  PyObject* old = last;
  last = now;
  Py_XDECREF(old);
}

}  // namespace

void enter_threading() noexcept {
  in_python([] {
    PyObject* threading = threading_module();
    if (threading == nullptr) return;  // then nobody can ask
    if (given.thread == nullptr) take_name(threading);
    take(kTrace, threading, given.trace);
    take(kProfile, threading, given.profile);
  });
}

void leave_threading() noexcept {
  if (given.thread == nullptr) return;
  in_python([] {
    // Newer Pythons do this by themselves.
    PyObject* active = PyObject_GetAttrString(threading_module(), "_active");
    PyObject* ident = PyObject_GetAttrString(given.thread, "ident");
    if (active != nullptr && ident != nullptr && PyDict_Check(active) &&
        PyDict_GetItemWithError(active, ident) == given.thread) {
      PyDict_DelItem(active, ident);
    }
    PyErr_Clear();
    Py_XDECREF(ident);
    Py_XDECREF(active);
    Py_CLEAR(given.thread);
    Py_CLEAR(given.trace);
    Py_CLEAR(given.profile);
  });
}

}  // namespace composable
