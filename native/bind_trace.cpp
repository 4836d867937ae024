// Recordings as Python sees them: begin, end, what was recorded, and what the spans' labels are.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <unordered_set>
#include <vector>

#include "bind_trace.h"
#include "gil.h"
#include "libraries.h"
#include "runnable.h"
#include "thread_state.h"
#include "ticks.h"
#include "trace.h"

namespace py = pybind11;

namespace composable {
namespace {

// Labels of the last recording; under the GIL. Keys of a graph are different objects, so looking for them is in vain.
struct Labels {
  std::size_t limit = 0;
  std::unordered_set<PyObject*> known;
  std::vector<PyObject*> keys;
  PyObject* latest = nullptr;  // of `known`: most tasks run what the one before ran
  std::size_t size() const noexcept { return known.size() + keys.size(); }

  // Out of the lists first: what dies here may run code of the program's.
  void clear() {
    std::vector<PyObject*> gone(known.begin(), known.end());
    gone.insert(gone.end(), keys.begin(), keys.end());
    known.clear();
    latest = nullptr;
    keys = {};
    for (PyObject* label : gone) Py_DECREF(label);
  }
};
Labels& labels = *new Labels;

PyObject* partial_type() {
  static PyObject* const type = [] {
    PyObject* module = PyImport_ImportModule("functools");
    PyObject* found = module != nullptr ? PyObject_GetAttrString(module, "partial") : nullptr;
    Py_XDECREF(module);
    if (found == nullptr) PyErr_Clear();
    return found;
  }();
  return type;
}

// A new reference to what stands for a callable without its closure, its object or its arguments.
PyObject* essence(PyObject* callable) {
  for (int deep = 0; deep < 16; ++deep) {
    if (PyUnicode_CheckExact(callable) || PyCode_Check(callable)) {
      return Py_NewRef(callable);
    } else if (PyMethod_Check(callable)) {
      callable = PyMethod_GET_FUNCTION(callable);
    } else if (PyFunction_Check(callable)) {
      return Py_NewRef(PyFunction_GET_CODE(callable));
    } else if (PyCFunction_Check(callable)) {
      PyObject* name = PyUnicode_InternFromString(reinterpret_cast<PyCFunctionObject*>(callable)->m_ml->ml_name);
      if (name != nullptr) return name;
      break;
    } else if (PyObject* type = partial_type(); type != nullptr && PyObject_IsInstance(callable, type) == 1) {
      PyObject* inner = PyObject_GetAttrString(callable, "func");
      if (inner == nullptr) break;
      Py_DECREF(inner);  // the partial holds it
      callable = inner;
    } else {
      break;
    }
  }
  PyErr_Clear();
  return Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(callable)));
}

py::bytes packed(const std::vector<trace::Span>& spans, std::uint64_t began, double per_us) {
  const double ns = 1000 / per_us;
  const auto since = [&](std::uint64_t at) -> std::uint64_t {
    return at > began ? static_cast<std::uint64_t>(static_cast<double>(at - began) * ns) : 0;
  };
  std::vector<std::uint64_t> words;
  words.reserve(4 * spans.size());
  for (const trace::Span& span : spans) {
    words.insert(words.end(), {since(span.begin), since(span.end), span.what,
                               std::uint64_t{span.count} << 32 | std::uint64_t{span.width} << 8 |
                                   static_cast<std::uint64_t>(span.kind)});
  }
  return py::bytes(reinterpret_cast<const char*>(words.data()), words.size() * sizeof(std::uint64_t));
}

py::dict collect() {
  std::vector<trace::Record> records;
  {
    GilAway away;
    records = trace::collect();
  }
  const trace::Times times = trace::times();
  const double per_us = exact_ticks_per_us();
  const auto seconds = [&](std::uint64_t at) {
    return at > times.begin ? static_cast<double>(at - times.begin) / per_us * 1e-6 : 0.0;
  };
  py::list threads;
  for (const trace::Record& record : records) {
    py::dict thread;
    thread["tid"] = record.tid;
    thread["name"] = record.name;
    thread["worker"] = record.worker;
    thread["dropped"] = record.dropped;
    thread["dropped_at"] = seconds(record.dropped_at);
    thread["spans"] = packed(record.spans, times.begin, per_us);
    threads.append(std::move(thread));
  }
  py::dict named;
  for (PyObject* label : labels.known)
    named[py::int_(reinterpret_cast<std::uintptr_t>(label))] = py::reinterpret_borrow<py::object>(label);
  for (PyObject* label : labels.keys)
    named[py::int_(reinterpret_cast<std::uintptr_t>(label))] = py::reinterpret_borrow<py::object>(label);
  py::dict paths;
  for (const Library* library : Libraries::instance().process_wide()) {
    paths[py::int_(reinterpret_cast<std::uintptr_t>(library))] = library->path;
  }
  py::list runnable;
  for (const RunnableWatch::Sample& sample : RunnableWatch::samples()) {
    runnable.append(py::make_tuple(seconds(sample.at), sample.running, sample.waiting, sample.threads));
  }
  py::dict found;
  found["threads"] = threads;
  found["labels"] = named;
  found["libraries"] = paths;
  found["runnable"] = runnable;
  found["seconds"] = seconds(times.end != 0 ? times.end : ticks());
  return found;
}

void start(std::size_t limit) {
  trace::start(limit);  // throws while another is on
  labels.clear();
  labels.limit = limit;
  RunnableWatch::start();
}

}  // namespace

std::uintptr_t keep_label(PyObject* label) {
  if (labels.size() >= labels.limit) return 0;
  labels.keys.push_back(Py_NewRef(label));
  return reinterpret_cast<std::uintptr_t>(label);
}

std::uintptr_t label_of(PyObject* callable) {
  static PyObject* const attribute = PyUnicode_InternFromString("trace_label");
  PyObject* named = in_python([&] { return PyObject_GetAttr(callable, attribute); });
  if (named == nullptr) PyErr_Clear();
  PyObject* label = essence(named != nullptr ? named : callable);
  Py_XDECREF(named);
  if (label == labels.latest || labels.known.find(label) != labels.known.end()) {
    Py_DECREF(label);
  } else if (labels.size() < labels.limit) {
    labels.known.insert(label);
  } else {
    Py_DECREF(label);
    return 0;
  }
  labels.latest = label;
  return reinterpret_cast<std::uintptr_t>(label);
}

void register_trace(py::module_& module) {
  module.def("trace_start", &start, py::arg("limit"));
  module.def("trace_stop", [] {
    RunnableWatch::stop();
    trace::stop();
  });
  module.def("trace_on", &trace::on);
  module.def(
      "trace_label",
      [](const py::object& callable) {
        if (trace::on()) this_thread().trace_label = label_of(callable.ptr());
      },
      py::arg("callable"));
  module.def("trace_collect", &collect);
  module.def("trace_forget", [] {
    trace::forget();
    if (!trace::on()) labels.clear();
  });
}

}  // namespace composable
