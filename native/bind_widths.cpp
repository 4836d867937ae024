// Widths of BLAS and OpenMP libraries as Python sees them: which there are, limits, the cap of an activation.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "arena.h"

namespace py = pybind11;

namespace composable {
namespace {

py::dict row(const std::string& kind, const py::object& path, const char* scope, const py::object& width) {
  py::dict row;
  row["kind"] = kind;
  row["path"] = path;
  row["scope"] = scope;
  row["width"] = width;
  return row;
}

py::list libraries() {
  Libraries& found = Libraries::instance();
  const std::vector<OtherLibrary> others = found.others();
  py::list list;
  for (const std::string& kind : Libraries::kinds()) {
    bool absent = true;
    for (const auto* known : {&found.process_wide(), &found.per_thread()}) {
      for (const Library* library : *known) {
        if (library->kind != kind) continue;
        absent = false;
        list.append(row(kind, py::str(library->path), library->scope == Scope::process ? "process" : "thread",
                        py::int_(library->get())));
      }
    }
    for (const OtherLibrary& library : others) absent = absent && library.kind != kind;
    if (absent) list.append(row(kind, py::none(), "absent", py::none()));
  }
  for (const OtherLibrary& library : others) {
    list.append(row(library.kind, py::str(library.path), library.waits ? "waiting" : "unknown", py::none()));
  }
  return list;
}

// The context in which the calling thread's task may use at most so many threads in BLAS and OpenMP calls.
class WidthLimit {
 public:
  explicit WidthLimit(int count) : count_(count) {
    if (count < 1) throw std::invalid_argument("a width must be at least 1, not " + std::to_string(count));
  }
  void enter() {
    if (scope_) throw std::runtime_error("this WidthLimit is in use already; make one per block");
    change(1);
    scope_.emplace(this_thread(), count_);
  }
  void exit() {
    if (!scope_) return;
    scope_.reset();
    change(-1);
  }

 private:
  void change(int tasks) {
    Arena& arena = Arena::instance();
    Lock held = arena.lock();
    arena.widths(held).limit(count_, tasks);
    arena.adjust_widths(held);
  }

  const int count_;
  std::optional<WidthScope> scope_;
};

// A limit that the user sets by threadpoolctl, see UserLimits. Without an arena there is no width of ours to mind.
class PyUserLimits {
 public:
  PyUserLimits() {
    Arena* arena = Arena::existing();
    if (arena == nullptr) return;
    Libraries::instance().refresh();
    Lock held = arena->lock();
    arena->adjust_widths(held);
    limits_.emplace(arena->widths(held));
  }
  void begin(const std::map<std::string, int>& counts) {
    change([&](Widths& widths) { limits_->begin(widths, counts, this_thread().task_depth > 0); });
  }
  void end() {
    change([&](Widths& widths) { limits_->end(widths); });
  }

 private:
  template <typename Change>
  void change(Change&& change) {
    if (!limits_) return;
    Arena& arena = Arena::instance();
    Lock held = arena.lock();
    change(arena.widths(held));
    arena.adjust_widths(held);
  }

  std::optional<UserLimits> limits_;
};

void cap_widths(bool on) {
  Arena& arena = Arena::instance();
  Lock held = arena.lock();
  arena.widths(held).cap(on, this_thread());
  arena.adjust_widths(held);
}

void impose_widths(std::map<std::string, int> widths) {
  const std::vector<std::string> kinds = Libraries::kinds();
  for (const auto& [kind, width] : widths) {
    const bool known = std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
    if (!known) throw std::invalid_argument("no width can be set in " + kind);
    if (width < 1) throw std::invalid_argument("a width must be at least 1, not " + std::to_string(width));
  }
  Libraries::instance().impose(std::move(widths));
  Arena* arena = Arena::existing();
  if (arena == nullptr) return;
  Lock held = arena->lock();
  arena->adjust_widths(held);
}

void cap_thread_widths() {
  Arena& arena = Arena::instance();
  Lock held = arena.lock();
  arena.widths(held).cap_thread(this_thread());
}

}  // namespace

void register_widths(py::module_& module) {
  module.def("libraries", &libraries);
  module.def("cap_widths", &cap_widths, py::arg("on"));
  module.def("cap_thread_widths", &cap_thread_widths);
  module.def("impose_widths", &impose_widths, py::arg("widths"));
  py::class_<WidthLimit>(module, "WidthLimit")
      .def(py::init<int>(), py::arg("count"))
      .def("__enter__", &WidthLimit::enter)
      .def("__exit__", [](WidthLimit& limit, const py::args&) { limit.exit(); });
  py::class_<PyUserLimits>(module, "UserLimits")
      .def(py::init<>())
      .def("begin", &PyUserLimits::begin, py::arg("counts"))
      .def("end", &PyUserLimits::end);
}

}  // namespace composable
