// Attributes that a class keeps in slots of its instances (`__slots__`), read where they lie; and memory asked for
// before it is read: a large graph does not fit into the caches. With the GIL.
#pragma once

#include <pybind11/pybind11.h>
#include <structmember.h>

namespace composable {

namespace py = pybind11;

inline void prefetch_object(const void* object) noexcept {
  const auto* bytes = static_cast<const char*>(object);
  __builtin_prefetch(bytes);
  __builtin_prefetch(bytes + 64);
}

/// Asks for the items of a tuple, if it is one. Reads its head.
inline void prefetch_items(PyObject* object) noexcept {
  constexpr Py_ssize_t kMost = 4;
  if (object == nullptr || !PyTuple_CheckExact(object)) return;
  const Py_ssize_t count = PyTuple_GET_SIZE(object) < kMost ? PyTuple_GET_SIZE(object) : kMost;
  for (Py_ssize_t i = 0; i < count; ++i) __builtin_prefetch(PyTuple_GET_ITEM(object, i));
}

/// An attribute of objects, read fast where it is a slot of `type` and the object is of just that type.
class Slot {
 public:
  /// `member`: the slot that holds the attribute, where its name is another one; "" for none.
  Slot(const py::object& type, const char* attribute, const char* member = nullptr)
      : type_(reinterpret_cast<PyTypeObject*>(type.ptr())), attribute_(PyUnicode_InternFromString(attribute)) {
    const py::object found = py::getattr(type, member == nullptr ? attribute : member, py::none());
    if (Py_TYPE(found.ptr()) != &PyMemberDescr_Type) return;
    const PyMemberDef* definition = reinterpret_cast<PyMemberDescrObject*>(found.ptr())->d_member;
    if (definition->type == T_OBJECT_EX) offset_ = definition->offset;
  }

  /// As getattr: a new reference, or null with the error set.
  PyObject* get(PyObject* object) const {
    if (PyObject* found = peek(object)) return Py_NewRef(found);
    return PyObject_GetAttr(object, attribute_);
  }

  /// Borrowed; null where it takes getattr to know.
  PyObject* peek(PyObject* object) const noexcept {
    if (Py_TYPE(object) != type_ || offset_ == 0) return nullptr;
    return *reinterpret_cast<PyObject**>(reinterpret_cast<char*>(object) + offset_);
  }

 private:
  PyTypeObject* type_;
  PyObject* attribute_;  // interned, kept for good
  Py_ssize_t offset_ = 0;
};

}  // namespace composable
