// The tasks of one Joblib call, one executor or one graph, in order of submission.
//
// A group is the unit of isolation: a thread that waits for a group runs that group's tasks and no others. It is
// also the unit of the user's own limit (n_jobs, max_workers), on top of the arena's permits.
//
// State, all under the arena's lock:
//   queued_    submitted, not started; one entry may stand for many runs of the same callable
//   waiting_   how many runs that are
//   active_    being run now, by workers or by threads that help
//   finished_  how many ended, so that a sleeper can tell whether anything moved since it looked
//   nudges_    how often nudge() was called; part of finished_
//   counted_   its part of the arena's load: what may run at once
//   watchers_  threads asleep until something moves
//   alive_     itself, while anything is queued or active, so that its owner may forget it
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "arena.h"
#include "arena_limit.h"

namespace composable {

/// One callable. Each run that it was submitted for is a task of its own; with the last one, or when the rest is
/// dropped, it destroys itself. It keeps its errors to itself; run() is not noexcept all the same, because the end of
/// the interpreter may unwind a thread in the middle of one (gil.h).
class Task {
 public:
  virtual void run() = 0;
  /// After it was taken off the queue: the runs that it was queued for will not be.
  virtual void drop() noexcept = 0;

 protected:
  /// Tasks of the same `what` that follow each other in the queue share an entry; null: never.
  explicit Task(const void* what = nullptr) noexcept : what_(what) {}
  ~Task() = default;
  /// So many runs are over; true for the last ones, after which nobody else has a pointer to it.
  bool release(int runs) noexcept { return runs_.fetch_sub(runs, std::memory_order_acq_rel) == runs; }
  int queued() const noexcept { return queued_; }

 private:
  friend class TaskGroup;
  const void* const what_;
  int queued_ = 0;            // runs not begun; under the arena's lock
  std::atomic<int> runs_{0};  // those and the ones that have not ended
};

class TaskGroup final : public Source, public std::enable_shared_from_this<TaskGroup> {
 public:
  /// How a worker runs `first` and then what next() gives: the bindings hold the GIL over the whole of it.
  using Execute = void (*)(TaskGroup&, Task* first, ThreadState&);
  static Execute execute;

  /// Owned by shared_ptr. At most `limit` of its tasks run at once; throws std::invalid_argument below 1.
  TaskGroup(Arena& arena, int limit);
  /// Queues `runs` >= 1 runs of `task`. False if the newest entry took them, being of the same callable; `task` stays
  /// the caller's then. With `kept` the calling thread, which runs a task of this group, takes the next one itself:
  /// nobody is summoned for a single one. Throws std::system_error if there is no thread to run it and none is to be
  /// had.
  bool submit(Task* task, int runs = 1, bool kept = false);
  /// The next task for a worker that just ran one; null when it should look at the board again.
  Task* next(ThreadState& self);

  enum class State { idle, moved, permit, late };
  /// A task for a thread that waits for this group, or null: nothing is queued, or no permit is free.
  Task* claim(ThreadState& self);
  void ended(ThreadState& self);
  /// What a thread that waits wants to hear of, beside the end of all tasks.
  enum class Watch {
    nudges,  // only that
    ends,    // every task's end, too
    work,    // something to run, too: it helps
  };
  /// Sleeps until the group is idle, what it watches moved after `seen`, a permit came (if it watches for work), or the
  /// deadline. Gives the thread's own permit away meanwhile; HelpScope takes it back.
  State wait(ThreadState& self, Watch watch, std::uint64_t seen, Clock::time_point deadline);
  std::uint64_t seen(Watch watch);

  /// Takes what is queued off the group, or what of it is `what`; the caller drops it.
  std::deque<Task*> take_queued(const void* what = nullptr);
  struct Load {
    int queued, active;
  };
  Load load();
  /// Wakes whoever waits for it, so that conditions outside it are looked at again.
  void nudge();
  int limit() const noexcept { return limit_.load(std::memory_order_relaxed); }
  /// ThreadState::nesting in its tasks.
  int nesting() const noexcept { return nesting_; }
  /// ThreadState::limit in its tasks.
  int limit_inside_tasks() const noexcept { return limit_inside(bound_, limit()); }
  Arena& arena() const noexcept { return arena_; }
  void set_limit(int limit);
  /// For a group whose tasks come one by one from somebody who first has to hear that one has ended: from the first call
  /// on what widths count of it falls only here, to the most that it was between this call and the one before last. So
  /// the gap between two tasks is not taken for idleness. True as long as it counts anything; with `goes_on` false it falls
  /// at once again, as it must before the group is given up.
  bool settle_load(bool goes_on = true);

  int wanted() const noexcept override;
  void work(Lock& lock, ThreadState& self) noexcept override;
  Kind kind() const noexcept override { return Kind::task; }
  int depth() const noexcept override { return depth_; }

 private:
  Task* pop(Lock&);
  [[nodiscard]] std::shared_ptr<TaskGroup> finish(Lock&, ThreadState& self);
  void renew(Lock&);
  int present() const noexcept;
  bool recount(Lock&) noexcept;

  Arena& arena_;
  const int bound_;         // ThreadState::limit of the thread that made it
  std::atomic<int> limit_;  // written under the lock
  const int depth_;
  const int nesting_;
  std::uint64_t generation_;
  struct Watcher {
    Waiter* waiter;
    Watch watch;
  };
  void tell(Watch of);
  std::uint64_t moved(Watch watch) const noexcept { return watch == Watch::ends ? finished_ : nudges_; }

  std::deque<Task*> queued_;
  std::size_t waiting_ = 0;
  int active_ = 0;
  int counted_ = 0;      // in the arena's load
  bool steady_ = false;  // see settle_load()
  int counted_least_ = 0;
  int most_counted_ = 0;  // since the last settle_load()
  std::uint64_t finished_ = 0;
  std::uint64_t nudges_ = 0;
  std::vector<Watcher> watchers_;
  std::shared_ptr<TaskGroup> alive_;
};

/// While it lives process-wide widths are `count` at most, because a task under a limit runs.
class WidthCeiling {
 public:
  WidthCeiling(Arena& arena, int count) : arena_(arena), count_(count) { change(1); }
  ~WidthCeiling() { change(-1); }
  WidthCeiling(const WidthCeiling&) = delete;
  WidthCeiling& operator=(const WidthCeiling&) = delete;

 private:
  void change(int tasks);

  Arena& arena_;
  const int count_;
};

/// What surrounds every task on the thread that runs it: Numba's thread state and the widths of BLAS and OpenMP.
class TaskScope {
 public:
  TaskScope(Arena& arena, ThreadState& self);

 private:
  static int look_again(Arena& arena, ThreadState& self);

  KernelScope kernel_;
  WidthScope width_;
  std::optional<WidthCeiling> ceiling_;
};

/// A thread of the program that computes like a task, without a group: counted, with a permit, at a task's widths.
class ProgramTask {
 public:
  /// May sleep until a permit is free, see Arena::enter().
  ProgramTask(Arena& arena, ThreadState& self);
  ~ProgramTask();
  ProgramTask(const ProgramTask&) = delete;
  ProgramTask& operator=(const ProgramTask&) = delete;

  /// Its thread ends without it: nothing is counted any more, nor put back. What is left is to delete it.
  void abandon() noexcept;
  bool abandoned() const noexcept { return abandoned_.load(std::memory_order_acquire); }

 private:
  void uncount() noexcept;
  static ThreadState& began(Arena& arena, ThreadState& self, bool& entered);

  Arena& arena_;
  const std::uint64_t generation_;
  const std::uint64_t began_at_;  // ticks
  const std::uint32_t began_in_;  // the recording that was on
  bool entered_ = false;
  std::atomic<bool> abandoned_{false};
  ThreadState& self_;
  std::unique_ptr<TaskScope> scope_;
};

/// A thread waits for a group and may run its tasks. At the end it has a permit if and only if it had one before.
class HelpScope {
 public:
  HelpScope(Arena& arena, ThreadState& self) noexcept
      : arena_(arena), self_(self), had_(self.holds.load(std::memory_order_relaxed)) {}
  HelpScope(const HelpScope&) = delete;
  HelpScope& operator=(const HelpScope&) = delete;
  /// True if restore() would have to sleep.
  bool must_wait() const noexcept { return had_ && !self_.holds.load(std::memory_order_relaxed); }
  void restore();

 private:
  Arena& arena_;
  ThreadState& self_;
  const bool had_;
};

}  // namespace composable
