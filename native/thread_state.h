// What the arena knows about one OS thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <ctime>
#include <vector>

#include <sys/types.h>

namespace composable {

/// The values that Numba's generated code reads and writes through the ABI, per thread. A task or a chunk
/// that changes them never shows the change to its surroundings: see KernelScope.
struct KernelState {
  std::intptr_t thread_id = 0;    // of the innermost running region, 0 outside
  std::intptr_t mask = 0;         // get_num_threads(); 0: never set on this thread
  std::uintptr_t chunk_size = 0;  // set_parallel_chunksize(); 0: the layer decides
  std::uintptr_t loop = 0;        // where the divisions asked for last were asked for
  std::uint64_t loop_size = 0;    // how many iterations they cover
  bool chunked = false;           // the divisions asked for last, for the next parfor, follow a chunk size
};

struct Library;
namespace trace {
struct Buffer;
}
class ProgramTask;

/// A library whose width was above P, and what puts it back.
struct CappedWidth {
  const Library* library;
  int own;
};

/// One per thread, alive as long as the thread. Only the owner touches it, but for `holds`, which the
/// keeper may clear, and `cpu_*`, which belong to the keeper; both under the arena's lock.
struct ThreadState {
  ThreadState();
  ~ThreadState();

  /// True while this thread has one of the arena's permits. Taken away by exchange(false) only, so that
  /// a permit is given back once, by the thread or by the keeper.
  std::atomic<bool> holds{false};
  bool worker = false;                  // started by the arena: a oneTBB worker or a spare
  int task_depth = 0;                   // tasks on this thread's stack
  int nesting = 0;                      // the same, with those that wait for them in other threads, see NestingScope
  int parents_tasks = 0;                // the lowest so many began before a fork and count in the parent only
  ProgramTask* program_task = nullptr;  // in the middle of which it is
  KernelState kernel;
  std::uint64_t interrupt_look = 0;       // ticks() from which on a region of this thread asks for interrupts
  int limit = 0;                          // at most so many threads for what it opens; 0: none (arena_limit.h)
  trace::Buffer* trace_buffer = nullptr;  // once it has recorded anything
  int share = 1;                          // width of BLAS and OpenMP calls in the task it runs
  int openmp_size = 0;                    // the one team size above 1 that its OpenMP runtime keeps, see widths.cpp
  std::uint64_t openmp_changed = 0;       // ticks
  std::uint64_t libraries_seen = 0;       // ticks
  std::vector<CappedWidth> capped;        // thread-wide ones, see Widths::cap()

  std::uintptr_t trace_label = 0;  // what the task that it records turned out to run; 0: what was said before
  std::uint64_t blocked_at = 0;    // ticks; the blocking() it is in, while a recording is on
  std::uint32_t blocked_in = 0;    // which recording

  pid_t tid;            // for /proc/self/task
  clockid_t cpu_clock;  // this thread's CPU clock
  bool has_clock;

  std::int64_t cpu_mark = 0;       // CPU ns when the keeper last looked
  std::int64_t slow_cpu_mark = 0;  // the same, at the start of the slow window
  std::int64_t slow_all_mark = 0;  // CPU ns of the whole process then
  int stalled_looks = 0;
  int slow_looks = 0;
};

namespace detail {
// A region asks several times, and a call into the loader for each would be felt. A pointer fits into the room that loaders
// keep for libraries that come late, for which this model asks.
extern thread_local constinit ThreadState* current [[gnu::tls_model("initial-exec")]];
[[gnu::cold]] ThreadState& begin_thread() noexcept;
}  // namespace detail

inline ThreadState& this_thread() noexcept {
  ThreadState* const known = detail::current;
  return known != nullptr ? *known : detail::begin_thread();
}

/// In a task that tasks wait for, this many deep, under its group's limit. A bound on it is one on the threads that wait in their middle.
class NestingScope {
 public:
  NestingScope(ThreadState& self, int inside, int limit) noexcept
      : self_(self), outside_(self.nesting), limit_(self.limit) {
    self.nesting = inside;
    self.limit = limit;
  }
  ~NestingScope() {
    self_.nesting = outside_;
    self_.limit = limit_;
  }
  NestingScope(const NestingScope&) = delete;
  NestingScope& operator=(const NestingScope&) = delete;

 private:
  ThreadState& self_;
  const int outside_;
  const int limit_;
};

/// Gives a task or a nested region its own KernelState and puts the old one back.
class KernelScope {
 public:
  explicit KernelScope(ThreadState& self, KernelState inside = {}) noexcept : self_(self), outside_(self.kernel) {
    self.kernel = inside;
  }
  ~KernelScope() { self_.kernel = outside_; }
  KernelScope(const KernelScope&) = delete;
  KernelScope& operator=(const KernelScope&) = delete;

 private:
  ThreadState& self_;
  KernelState outside_;
};

}  // namespace composable
