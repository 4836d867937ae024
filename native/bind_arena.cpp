// The arena as Python sees it: size, counts, permits given away while blocked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "arena.h"
#include "gil.h"
#include "arena_limit.h"
#include "ticks.h"
#include "trace.h"
#include "workers.h"

namespace py = pybind11;

namespace composable {
namespace {

py::dict limits() {
  const CpuLimits found = read_cpu_limits();
  py::dict dict;
  dict["slots"] = found.slots;
  dict["slots_source"] = found.source;
  dict["affinity"] = found.affinity;
  dict["quota"] = found.quota;
  dict["quota_group"] = found.quota_group;
  dict["variable"] = found.variable;
  return dict;
}

py::dict counts() {
  py::dict dict;
  Arena* arena = Arena::existing();
  const Counts now = arena != nullptr ? arena->counts() : Counts{};
  dict["running"] = now.running;
  dict["peak_running"] = now.peak_running;
  dict["waiting"] = now.waiting;
  dict["open_tasks"] = now.open_tasks;
  dict["open_regions"] = now.open_regions;
  dict["workers_inside"] = now.workers_inside;
  dict["spares"] = now.spares;
  dict["in_tasks"] = now.in_tasks;
  dict["summoned"] = now.summoned;
  dict["replaced"] = now.replaced;
  dict["awoken"] = now.awoken;
  dict["lane_offers"] = now.lane_offers;
  dict["forked"] = now.forked;
  return dict;
}

// While a task waits for something outside the arena its permit serves others.
bool block_begin() {
  Arena* arena = Arena::existing();
  ThreadState& self = this_thread();
  if (arena == nullptr || !self.holds.load(std::memory_order_relaxed)) return false;
  if (const std::uint32_t session = trace::session(); session != 0) {
    self.blocked_in = session;
    self.blocked_at = ticks();
  }
  Lock held = arena->lock();
  arena->drop_permit(held, self);
  return true;
}

void block_end(bool had) {
  ThreadState& self = this_thread();
  if (!had) return;
  if (self.blocked_in != 0) {
    trace::record(self, std::exchange(self.blocked_in, 0u),
                  {.begin = self.blocked_at,
                   .end = ticks(),
                   .what = static_cast<std::uintptr_t>(trace::For::outside),
                   .count = 1,
                   .width = static_cast<std::uint16_t>(self.share),
                   .kind = trace::Kind::wait});
  }
  if (self.holds.load(std::memory_order_relaxed)) return;
  GilAway away;
  Lock held = Arena::instance().lock();
  Arena::instance().await_permit(held, self);
}

// Waits for the threads that the child started and writes out what it printed. Errors have nobody to go to.
void end_as_multiprocessing_does() {
  if (closing()) return;
  with_gil([] {
    const auto call = [](const char* module, const char* object, const char* method) {
      try {
        py::object owner = py::module_::import(module);
        if (object != nullptr) owner = owner.attr(object);
        owner.attr(method)();
      } catch (py::error_already_set&) {
      }
    };
    call("threading", nullptr, "_shutdown");
    call("sys", "stdout", "flush");
    call("sys", "stderr", "flush");
  });
}

// The context behind composable_threads.limit() for everybody.
class LimitContext {
 public:
  explicit LimitContext(int count) : count_(count) {
    if (count < 1) throw std::invalid_argument("a limit must be at least 1, not " + std::to_string(count));
  }
  void enter() {
    if (limit_) throw std::runtime_error("this limit() context is in use already; make one per block");
    limit_ = std::make_unique<ArenaLimit>(Arena::instance(), this_thread(), count_);
  }
  void exit() { limit_.reset(); }

 private:
  const int count_;
  std::unique_ptr<ArenaLimit> limit_;
};

}  // namespace

// By which threadpoolctl knows this file from others of its name.
extern "C" __attribute__((visibility("default"))) const char composable_threads_arena[] = "composable";

void register_arena(py::module_& module) {
  keep_forks_apart();
  Arena::hooks = {.started = attach_thread, .ending = detach_thread, .child_ending = end_as_multiprocessing_does};
  module.def("configure", &Arena::configure, py::arg("slots"));
  module.def("slots", [] { return Arena::instance().slots(); });
  module.def("planned_slots", &Arena::planned_slots);
  module.def("started_slots", []() -> std::optional<int> {
    if (Arena* arena = Arena::existing()) return arena->slots();
    return std::nullopt;
  });
  module.def("started_source", []() -> std::optional<std::string> {
    if (Arena* arena = Arena::existing()) return arena->slots_source();
    return std::nullopt;
  });
  module.def("limits", &limits);
  module.def("counts", &counts);
  module.def("reset_peak", [] {
    if (Arena* arena = Arena::existing()) arena->reset_peak();
  });
  module.def("most", [] { return Arena::instance().most(); });
  module.def("base", [] { return Arena::instance().base(); });
  module.def("set_base", [](int count) { Arena::instance().set_base(count); }, py::arg("count"));
  module.def("thread_limit", [] { return this_thread().limit; });
  module.def(
      "set_thread_limit",
      [](int count) {
        if (count < 0)
          throw std::invalid_argument("a thread's limit is 0 (none) or more, not " + std::to_string(count));
        return std::exchange(this_thread().limit, count);
      },
      py::arg("count"));
  py::class_<LimitContext>(module, "ArenaLimit")
      .def(py::init<int>(), py::arg("count"))
      .def("__enter__", &LimitContext::enter)
      .def("__exit__", [](LimitContext& context, const py::args&) { context.exit(); });
  module.def("tbb_version", &Workers::version);
  module.def("holds_permit", [] { return this_thread().holds.load(std::memory_order_relaxed); });
  module.def("task_depth", [] { return this_thread().task_depth; });
  module.def("block_begin", &block_begin);
  module.def("block_end", &block_end, py::arg("had"));
}

}  // namespace composable
