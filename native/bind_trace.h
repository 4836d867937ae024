// Labels of tasks and nodes in a recording: Python objects by whose address a span names what ran.
#pragma once

#include <Python.h>

#include <cstdint>

namespace composable {

/// A label for what `callable` runs: its attribute `trace_label`, or itself, reduced to what keeps nothing of the
/// program's alive, which is code, text or a type. With the GIL, while a recording is on. 0 if no more are kept.
std::uintptr_t label_of(PyObject* callable);

/// `label` itself, as it is.
std::uintptr_t keep_label(PyObject* label);

}  // namespace composable
