// How many threads a BLAS or OpenMP call may use now: P divided among the tasks that are queued or running.
//
// Queued ones count, because a call keeps the width it started with: in the momentary gap between two tasks a call that
// thinks it is alone would bring its helpers, and OpenBLAS's helpers spin for a tenth of a second against everybody
// else.
//
// A library with one width per process (OpenBLAS) is governed from the first task until the load is 0 again. Its width
// is then the smaller of the share and the user's own; if somebody else sets it meanwhile (a task, through ctypes),
// that stands until it is put back. What it puts back may be a share that we had set when it looked: so at load 0 the
// user's own width follows any width that was ours. A limit that is made known (UserLimits, for threadpoolctl) needs no
// guessing: made in a task it replaces the share while it lasts. Libraries with a width per thread (OpenMP, MKL) are
// set on the thread that runs a task, for the task. A width that a launcher imposed (Libraries::impose) is no bound in
// either.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "libraries.h"
#include "thread_state.h"

namespace composable {

class Widths {
 public:
  explicit Widths(int slots) : slots_(slots), most_(slots) {}
  /// Shares are of so many threads from now on; P or fewer. Under the arena's lock.
  void narrow(int most) noexcept { most_ = most; }

  /// The width of a call in a task while `load` tasks are queued or running.
  int share(int load) const noexcept { return load <= 1 ? most_ : load >= most_ ? 1 : most_ / load; }
  /// Sets process-wide widths for `load`; 0 gives the user's own back. Under the arena's lock.
  void govern(int load);
  /// `change` more, or fewer, tasks whose calls may use at most `count` threads; govern() makes it true. Under the
  /// arena's lock.
  void limit(int count, int change);
  /// In the child of a fork: those tasks stayed with the parent.
  void forget_limits() noexcept { limits_.clear(); }
  /// Keeps widths of the whole process and of the calling thread at P or below, for a container whose quota the
  /// libraries do not see; `on` false gives them back where nobody changed them. Under the arena's lock.
  void cap(bool on, ThreadState& self);
  /// The same for a thread of the program that starts later: called on that thread, under the arena's lock.
  void cap_thread(ThreadState& self) const;

 private:
  friend class UserLimits;

  struct Governed {
    const Library* library;
    int own;                      // the user's width
    int last;                     // what we set
    std::uint64_t ours = 0;       // bit n: we set n since the load was 0
    std::vector<int> wishes{};    // of limits that the user set in tasks: the smallest stands
    std::vector<int> ceilings{};  // of limits that the user set outside tasks meanwhile
  };
  Governed* governed(const Library& library) noexcept;
  Governed& find(const Library& library);
  int wanted(const Governed& item, int load) const;
  void cap_process(const Library& library);

  const int slots_;
  int most_;
  std::vector<Governed> governed_;
  std::vector<CappedWidth> capped_;
  std::map<int, int> limits_;  // width -> tasks that ask for no more
  bool on_ = false;
  bool capping_ = false;
  std::uint64_t epoch_ = 0;  // counts the times that the load was 0
};

/// A limit that the user sets in the libraries themselves, between begin() and end(). It may outlive the task in which
/// it began, and all tasks. All under the arena's lock; the caller adjusts the widths afterwards.
class UserLimits {
 public:
  /// Before the libraries are set: remembers the user's own widths. Libraries must have been looked for, widths
  /// adjusted.
  explicit UserLimits(Widths& widths);
  /// After they were: `counts` by path. `in_task`: whether by a task, which has its way.
  void begin(Widths& widths, const std::map<std::string, int>& counts, bool in_task);
  /// After the libraries were set back to what they were at the start, which may have been a share of ours.
  void end(Widths& widths);

 private:
  struct Entry {
    const Library* library;
    int own;
    int count = 0;         // 0: not limited, but put back all the same
    bool outside = false;  // limited, and not by a task
  };
  std::vector<Entry> entries_;
  std::uint64_t epoch_;
  bool governed_;
  bool in_task_ = false;
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
  static constexpr int kMost = 8;
  struct Saved {
    const Library* library;
    int own;
  };
  Saved saved_[kMost];
  int count_ = 0;
};

}  // namespace composable
