#include "bind_threading.h"

#include <pybind11/pybind11.h>

#include <pthread.h>

#include "gil.h"

namespace py = pybind11;

namespace composable {
namespace {

struct Hook {
  // In threading: what threads to come are given. Its getters are Python, and whoever profiles would see them called.
  const char* set;
  const char* setter;  // in sys: gives it to the calling thread
};

constexpr Hook kTrace{"_trace_hook", "settrace"};
constexpr Hook kProfile{"_profile_hook", "setprofile"};

// What the calling worker is in threading, and what it was given last. Owned; a worker that never ends keeps them.
struct Worker {
  PyObject* thread = nullptr;
  PyObject* ident = nullptr;
  PyObject* trace = nullptr;
  PyObject* profile = nullptr;
};
thread_local Worker worker;

// A program may put anything into these modules; its mistakes are not the task's.
void tell(PyObject* about) {
  if (PyErr_Occurred() != nullptr) PyErr_WriteUnraisable(about);
}

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

// Where threading keeps the threads that are alive, by ident. Borrowed; null in a Python that keeps them elsewhere.
PyObject* alive() {
  static PyObject* dict = nullptr;
  if (dict == nullptr && threading_module() != nullptr) {
    dict = PyObject_GetAttrString(threading_module(), "_active");
    if (dict == nullptr || !PyDict_Check(dict)) Py_CLEAR(dict);
    PyErr_Clear();
  }
  return dict;
}

void make_thread(PyObject* threading) {
  char name[16];
  if (pthread_getname_np(pthread_self(), name, sizeof name) != 0) return;
  PyObject* thread = PyObject_CallMethod(threading, "current_thread", nullptr);
  PyObject* text = PyUnicode_FromString(name);
  if (thread != nullptr && text != nullptr && PyObject_SetAttrString(thread, "name", text) == 0) {
    worker.ident = PyObject_GetAttrString(thread, "ident");
  }
  if (worker.ident != nullptr) {
    worker.thread = thread;
  } else {
    tell(threading);
    Py_XDECREF(thread);
  }
  Py_XDECREF(text);
}

bool is_in() { return PyDict_GetItemWithError(alive(), worker.ident) == worker.thread; }

// True if it was not there.
bool enter(PyObject* threading) {
  if (alive() == nullptr) return false;
  if (worker.thread == nullptr) {
    make_thread(threading);
    return worker.thread != nullptr;
  }
  if (is_in()) return false;
  const bool entered = PyDict_SetItem(alive(), worker.ident, worker.thread) == 0;
  tell(threading);
  return entered;
}

void leave() {
  if (worker.thread != nullptr && is_in()) PyDict_DelItem(alive(), worker.ident);
  tell(worker.ident);
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
  if (done == nullptr) tell(now);
  Py_XDECREF(done);
  PyObject* old = last;
  last = now;
  Py_XDECREF(old);
}

}  // namespace

// A worker outlives the pools it works for, so what was set, or taken back, meanwhile is looked up each time.
InThreading::InThreading() noexcept {
  in_python([this] {
    PyObject* threading = threading_module();
    if (threading == nullptr) return;  // then nobody can ask
    entered_ = enter(threading);
    take(kTrace, threading, worker.trace);
    take(kProfile, threading, worker.profile);
  });
}

InThreading::~InThreading() {
  if (entered_) in_python(leave);
}

void leave_threading() noexcept {
  in_python([] {
    Py_CLEAR(worker.thread);
    Py_CLEAR(worker.ident);
    Py_CLEAR(worker.trace);
    Py_CLEAR(worker.profile);
  });
}

// Before Python 3.13 a child whose thread is in threading as one that threading did not start fails at its end.
void register_threading() {
  py::module_::import("os").attr("register_at_fork")(py::arg("before") = py::cpp_function(leave),
                                                     py::arg("after_in_parent") = py::cpp_function([] {
                                                       if (worker.thread != nullptr && threading_module() != nullptr)
                                                         enter(threading_module());
                                                     }));
}

}  // namespace composable
