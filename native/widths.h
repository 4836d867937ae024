// How many threads a BLAS or OpenMP call may use now: P divided among the tasks that are queued or running.
//
// Queued ones count, because a call keeps the width it started with: in the momentary gap between two tasks a call that
// thinks it is alone would bring its helpers, and OpenBLAS's helpers spin for a tenth of a second against everybody else.
//
// A library with one width per process (OpenBLAS) is governed from the first task until the load is 0 again. Its width is
// then the smaller of the share and the user's own; if somebody else sets it meanwhile (threadpool_limits in a task), that
// stands until it is put back. What it puts back may be a share that we had set when it looked: so at load 0 the user's
// own width follows any width that was ours. Libraries with a width per thread (OpenMP, MKL) are set on the thread that runs a
// task, for the task.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "libraries.h"
#include "thread_state.h"

namespace composable {

class Widths {
 public:
  explicit Widths(int slots) : slots_(slots) {}

  /// The width of a call in a task while `load` tasks are queued or running.
  int share(int load) const noexcept { return load <= 1 ? slots_ : load >= slots_ ? 1 : slots_ / load; }
  /// Sets process-wide widths for `load`; 0 gives the user's own back. Under the arena's lock.
  void govern(int load);
  /// `change` more, or fewer, tasks whose calls may use at most `count` threads; govern() makes it true. Under the
  /// arena's lock.
  void limit(int count, int change);
  /// In the child of a fork: those tasks stayed with the parent.
  void forget_limits() noexcept { limits_.clear(); }
  /// Keeps widths of the whole process and of the calling thread at P or below, for a container whose quota the
  /// libraries do not see; `on` false gives them back where nobody changed them. Under the arena's lock.
  void cap(bool on);

 private:
  struct Governed {
    const Library* library;
    int own;   // the user's width
    int last;  // what we set
    std::uint64_t ours;  // bit n: we set n since the load was 0
  };
  Governed& find(std::vector<Governed>& list, const Library& library);

  const int slots_;
  std::vector<Governed> governed_;
  std::vector<Governed> capped_;
  std::map<int, int> limits_;  // width -> tasks that ask for no more
  bool on_ = false;
  int last_load_ = 0;
};

/// Libraries::refresh(), at most every so often per thread; true if there is a new one to govern.
bool look_for_libraries(ThreadState& self);

/// Thread-wide widths for one task, on the thread that runs it.
class WidthScope {
 public:
  WidthScope(ThreadState& self, int share);
  ~WidthScope();
  WidthScope(const WidthScope&) = delete;
  WidthScope& operator=(const WidthScope&) = delete;

 private:
  static constexpr int kMost = 4;
  struct Saved {
    const Library* library;
    int own;
  };
  Saved saved_[kMost];
  int count_ = 0;
};

}  // namespace composable
