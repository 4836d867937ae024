// Dask's static order for graphs given as numbers.
#include "bind_order.h"

#include <pybind11/pybind11.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "bind_slot.h"

namespace py = pybind11;

namespace composable {
namespace {

template <typename Value>
Value checked(long long number) {
  if constexpr (sizeof(Value) == 1) return static_cast<Value>(number != 0);
  if (number < 0 || number > std::numeric_limits<Value>::max()) {
    throw py::value_error("numbers of nodes must fit 31 bits");
  }
  return static_cast<Value>(number);
}

template <typename Value, typename From>
void copy(const Py_buffer& buffer, std::vector<Value>& values) {
  const auto* from = static_cast<const From*>(buffer.buf);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = checked<Value>(static_cast<long long>(from[i]));
}

/// From a contiguous buffer of integers (array.array, bytes, memoryview), or from any sequence.
template <typename Value>
std::vector<Value> numbers(const py::object& source) {
  if (PyObject_CheckBuffer(source.ptr())) {
    Py_buffer buffer;
    if (PyObject_GetBuffer(source.ptr(), &buffer, PyBUF_FORMAT | PyBUF_ND) != 0) throw py::error_already_set();
    struct Release {
      Py_buffer& buffer;
      ~Release() { PyBuffer_Release(&buffer); }
    } release{buffer};
    const std::string_view format = buffer.format == nullptr ? "B" : buffer.format;
    if (buffer.ndim != 1 || format.size() != 1 || std::strchr("bBhHiIlLqQ?", format[0]) == nullptr) {
      throw py::type_error("expected one dimension of integers");
    }
    std::vector<Value> values(static_cast<std::size_t>(buffer.len / buffer.itemsize));
    switch (buffer.itemsize) {
      case 1: copy<Value, std::int8_t>(buffer, values); break;
      case 2: copy<Value, std::int16_t>(buffer, values); break;
      case 4: copy<Value, std::int32_t>(buffer, values); break;
      default: copy<Value, std::int64_t>(buffer, values); break;
    }
    return values;
  }
  const auto items = py::reinterpret_steal<py::object>(PySequence_Tuple(source.ptr()));
  if (!items) throw py::error_already_set();
  std::vector<Value> values(static_cast<std::size_t>(PyTuple_GET_SIZE(items.ptr())));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const long long number = PyLong_AsLongLong(PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i)));
    if (number == -1 && PyErr_Occurred() != nullptr) throw py::error_already_set();
    values[i] = checked<Value>(number);
  }
  return values;
}

py::list order_numbers(const py::object& offsets, const py::object& targets, const py::object& is_task,
                       const py::object& keys) {
  const auto rows = numbers<std::int32_t>(offsets);
  const auto nodes = numbers<std::int32_t>(targets);
  const auto tasks = numbers<std::uint8_t>(is_task);
  const bool callable = PyCallable_Check(keys.ptr()) != 0;
  std::vector<py::object> kept;
  if (!callable) {
    for (py::handle key : py::tuple(keys)) kept.push_back(py::reinterpret_borrow<py::object>(key));
  }
  KeyStrings texts = callable ? KeyStrings(py::reinterpret_borrow<py::function>(keys)) : KeyStrings(kept);
  const Array<std::int64_t> priorities = order({rows, nodes, tasks}, texts);
  py::list result(priorities.size());
  for (std::size_t i = 0; i < priorities.size(); ++i) {
    PyObject* number = PyLong_FromLongLong(priorities[i]);
    if (number == nullptr) throw py::error_already_set();
    PyList_SET_ITEM(result.ptr(), static_cast<Py_ssize_t>(i), number);
  }
  return result;
}

}  // namespace

std::string_view KeyStrings::text(std::int32_t node) {
  if (string_) return utf8(string_(node));
  if (static_cast<std::size_t>(node) >= keys_.size()) throw py::index_error("there are fewer keys than nodes");
  PyObject* key = keys_[static_cast<std::size_t>(node)].ptr();
  if (PyUnicode_CheckExact(key)) return utf8(py::reinterpret_borrow<py::object>(key));
  if (PyTuple_CheckExact(key) && format(key)) return keep(text_);
  auto string = py::reinterpret_steal<py::object>(PyObject_Str(key));
  if (!string) throw py::error_already_set();
  return utf8(std::move(string));
}

void KeyStrings::expect(std::int32_t node, bool soon) noexcept {
  if (static_cast<std::size_t>(node) >= keys_.size()) return;
  PyObject* key = keys_[static_cast<std::size_t>(node)].ptr();
  if (soon) {
    prefetch_items(key);
  } else {
    prefetch_object(key);
  }
}

std::string_view KeyStrings::utf8(py::object string) {
  if (!PyUnicode_Check(string.ptr())) throw py::type_error("expected a string");
  Py_ssize_t size = 0;
  if (const char* text = PyUnicode_AsUTF8AndSize(string.ptr(), &size)) {
    strings_.push_back(std::move(string));
    return {text, static_cast<std::size_t>(size)};
  }
  PyErr_Clear();  // lone surrogates, which Python compares by number too
  auto bytes = py::reinterpret_steal<py::object>(PyUnicode_AsEncodedString(string.ptr(), "utf-8", "surrogatepass"));
  if (!bytes) throw py::error_already_set();
  strings_.push_back(bytes);
  return {PyBytes_AS_STRING(bytes.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(bytes.ptr()))};
}

std::string_view KeyStrings::keep(std::string_view text) {
  constexpr std::size_t kBlock = 1 << 14;
  if (text.size() > left_) {
    left_ = std::max(kBlock, text.size());
    blocks_.push_back(std::make_unique_for_overwrite<char[]>(left_));
    block_end_ = blocks_.back().get() + left_;
  }
  char* kept = block_end_ - left_;
  text.copy(kept, text.size());
  left_ -= text.size();
  return {kept, text.size()};
}

// str() of the usual key, ("name", 1, 2), at a fifth of what Python takes, into text_; false for others.
bool KeyStrings::format(PyObject* key) {
  std::string& text = text_;
  text = '(';
  const Py_ssize_t size = PyTuple_GET_SIZE(key);
  for (Py_ssize_t i = 0; i < size; ++i) {
    PyObject* item = PyTuple_GET_ITEM(key, i);
    if (i > 0) text += ", ";
    if (PyLong_CheckExact(item)) {
      int overflow = 0;
      char digits[24];
      const long long number = PyLong_AsLongLongAndOverflow(item, &overflow);
      if (overflow != 0) return false;
      text.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
    } else if (PyUnicode_CheckExact(item) && plain(item)) {
      text += '\'';
      text.append(static_cast<const char*>(PyUnicode_DATA(item)), static_cast<std::size_t>(PyUnicode_GET_LENGTH(item)));
      text += '\'';
    } else {
      return false;
    }
  }
  text += size == 1 ? ",)" : ")";
  return true;
}

bool KeyStrings::plain(PyObject* string) {
  if (string == plain_) return true;
  if (!PyUnicode_IS_COMPACT_ASCII(string)) return false;
  const auto* text = static_cast<const char*>(PyUnicode_DATA(string));
  const bool found = std::all_of(text, text + PyUnicode_GET_LENGTH(string),
                                 [](char c) { return c >= ' ' && c <= '~' && c != '\'' && c != '\\'; });
  if (found) plain_ = string;
  return found;
}

void register_order(py::module_& module) {
  py::register_exception<CycleError>(module, "CycleError", PyExc_RuntimeError);
  module.def("order", &order_numbers, py::arg("offsets"), py::arg("targets"), py::arg("is_task"), py::arg("keys"));
}

}  // namespace composable
