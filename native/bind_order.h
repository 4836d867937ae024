// str(key) of Python objects as the ordering asks for it; for other bindings that call order() on a graph of their own.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "order.h"

namespace composable {

/// Needs the GIL throughout. Python's errors come out of order() as pybind11::error_already_set.
class KeyStrings final : public KeyTexts {
 public:
  /// The keys by node, then the external ones. They must live as long.
  explicit KeyStrings(std::span<const pybind11::object> keys) : keys_(keys) {}
  /// Calls `string(node)` for each text.
  explicit KeyStrings(pybind11::function string) : string_(std::move(string)) {}

  std::string_view text(std::int32_t node) override;
  void expect(std::int32_t node, bool soon) noexcept override;

 private:
  std::string_view utf8(pybind11::object string);
  bool format(PyObject* key);
  std::string_view keep(std::string_view text);
  bool plain(PyObject* string);

  std::span<const pybind11::object> keys_;
  pybind11::function string_;
  PyObject* plain_ = nullptr;  // a string that needs no escapes: the name of the collection, in key after key
  std::vector<pybind11::object> strings_;
  std::string text_;  // the one that is being made
  // Where those that were made stay: many short ones after one another.
  std::vector<std::unique_ptr<char[]>> blocks_;
  char* block_end_ = nullptr;  // of the last one
  std::size_t left_ = 0;       // before it
};

}  // namespace composable
