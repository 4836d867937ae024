// The one arena: P slots, the permits to compute in them, and the board of open work.
//
// Every thread that computes for the arena holds a *permit*; there are P of them, so at most P threads compute,
// through whichever door they came. The threads themselves come from three places: oneTBB's workers (P of them,
// summoned one by one), the program's own threads, and spares that stand in for workers which wait (spares.h).
//
// State, all under one lock unless said otherwise:
//   running_   permits in use; atomic, since a region's caller takes and returns its own without the lock
//   waiters_   threads that need a permit before they go on, first come first served: those which stopped in the
//              middle of something, then those which could help
//   tasks_     open sources of tasks, those of the shallowest nesting first, in turn within one depth
//   regions_   open regions, in turn
//   demand_    size of the three lists together; atomic, read after a permit was returned without the lock
//   most_      permits that may be in use: P, or fewer while a limit lives (arena_limit.h); atomic
//   load_      tasks queued or running, and threads of shared regions: what BLAS and OpenMP widths follow (widths.h)
//   arriving_  workers summoned that have not looked at the board yet
//   lingering_ workers that found nothing and watch demand_ and the lane for some microseconds more before they leave;
//              atomic, read by regions to judge what an offer costs
//   dozing_    workers that lingered in vain and sleep for some milliseconds before they leave: they are summoned first
//   lane_      the short region that is offered to those alone (lane.h)
//   runners_   workers in regions that others opened; atomic, since those in the lane join and leave without the lock
//
// Two facts keep "never idle while there is work" true without a lock in the fast path. Who adds to a list raises
// demand_ and then reads running_; who returns a permit lowers running_ and then reads demand_ (both sequentially
// consistent): one of them sees the other, and it settles the board.
//
// The lock is held for list operations only. It is never held while the GIL is awaited, and code that has the GIL
// may take it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "cpu_quota.h"
#include "lane.h"
#include "thread_state.h"
#include "widths.h"

namespace composable {

class Arena;
class ArenaLimit;
class Keeper;
class Spares;
class Workers;

using Lock = std::unique_lock<std::mutex>;
using Clock = std::chrono::steady_clock;

/// Open work on the board.
class Source {
 public:
  virtual ~Source() = default;
  /// How many more threads could start on it at once. A region that says none may be closed by others, and is opened by
  /// whoever makes it want some again. Lock held.
  virtual int wanted() const noexcept = 0;
  /// The calling worker, which holds a permit, takes a share. Lock held at entry and at return, not meanwhile.
  virtual void work(Lock& lock, ThreadState& self) noexcept = 0;
  /// What the keeper may replace when it stands still.
  enum class Kind { task, region };
  virtual Kind kind() const noexcept = 0;
  /// Nesting of the frame which opened it; shallow work is started first.
  virtual int depth() const noexcept = 0;

 private:
  friend class Arena;
  friend class Lifecycle;
  bool open_ = false;
};

/// A thread asleep until it is granted a permit, or until what it watches has moved.
struct Waiter {
  explicit Waiter(ThreadState& thread) : self(thread) {}
  ThreadState& self;
  std::condition_variable wakes;
  bool wants_permit = false;  // in waiters_
  bool urgent = false;        // before the others, and region runners step back for it
  bool called = false;        // something it watches has happened
};

struct Counts {
  int running, peak_running, waiting, open_tasks, open_regions, arriving, workers_inside, spares;
  int in_tasks;  // threads, with or without a permit
  std::uint64_t summoned, replaced;
  std::uint64_t awoken;  // of the summoned, those that dozed
  std::uint64_t lane_offers;
  bool forked;
};

/// What the core calls in threads it started; set once by the bindings before the arena starts.
struct ThreadHooks {
  void (*started)() = nullptr;  // no lock held, before the thread takes work
  void (*ending)() = nullptr;
  void (*child_ending)() = nullptr;  // before Lifecycle::serve() ends the process
};

class Arena {
 public:
  /// The process's arena, made on first use with configured_slots(). Never destroyed: workers outlive main().
  static Arena& instance();
  static Arena* existing() noexcept;
  /// Fixes P before first use; 0 goes back to read_cpu_limits(). Throws std::logic_error once the arena runs
  /// with another P, std::invalid_argument below 0.
  static void configure(int slots);
  /// P, as it is or would be if the arena were made now. Throws as read_cpu_limits() does.
  static int planned_slots();
  static ThreadHooks hooks;

  int slots() const noexcept { return slots_; }
  /// How many threads may compute now: P, or fewer.
  int most() const noexcept { return most_.load(std::memory_order_relaxed); }
  /// What set them: CpuLimits::source, or "activate" for configure() with another number.
  const std::string& slots_source() const noexcept { return slots_source_; }
  /// It is held for so short a time that spinning for it is worth more than a sleep.
  Lock lock() {
    Lock held(mutex_, std::defer_lock);
    relock(held);
    return held;
  }
  void relock(Lock& held);

  // --- permits

  /// A thread of the program begins to compute; true if it took a permit here, which leave() returns. False: it
  /// had one. Always succeeds: where region runners hold the permits it waits for one of them to step back
  /// (bounded), else it runs as one more. In a task whose permit went to another it waits for one.
  bool enter(ThreadState& self);
  void leave(ThreadState& self) noexcept;

  bool try_permit(Lock&, ThreadState& self) noexcept;
  void drop_permit(Lock&, ThreadState& self);
  /// Sleeps until granted, called or past the deadline. `waiter.wants_permit` says whether it queues for one.
  void wait(Lock&, Waiter&, Clock::time_point deadline);
  /// Sleeps until the thread holds a permit.
  void await_permit(Lock&, ThreadState& self);
  /// `from` hands its permit to a sleeping waiter, which wakes.
  void hand_over(Lock&, ThreadState& from, Waiter& to) noexcept;
  void call(Waiter& waiter) noexcept {
    waiter.called = true;
    waiter.wakes.notify_one();
  }

  /// A worker must step back before it takes more: a thread of the program needs its permit, or runs without.
  bool overdrawn() const noexcept {
    return reclaim_.load(std::memory_order_relaxed) > 0 || running_.load(std::memory_order_relaxed) > most();
  }
  /// A region's runner must look at the board before its next block: tasks come before regions.
  bool recalls_runners() const noexcept { return overdrawn() || open_tasks_.load(std::memory_order_relaxed) > 0; }
  void runner_joined(Lock&) noexcept { runners_.fetch_add(1, std::memory_order_relaxed); }
  void runner_left(Lock&) noexcept;

  // --- widths of BLAS and OpenMP calls

  /// Work that may compute at once changed by this many: tasks queued or running within their group's limit, threads of
  /// shared regions.
  void add_load(Lock&, int tasks) noexcept { load_ += tasks; }
  /// Sets process-wide widths for the load as it is; returns the width of one task.
  int adjust_widths(Lock&);
  /// That width as it was last. No lock needed.
  int share() const noexcept { return share_.load(std::memory_order_relaxed); }
  Widths& widths(Lock&) noexcept { return widths_; }

  // --- limits

  /// What stands where no ArenaLimit lives: P until somebody sets it. Throws std::invalid_argument below 1.
  void set_base(int count);
  int base();

  // --- the board

  void open(Lock&, Source&);
  void close(Lock&, Source&) noexcept;
  /// Grants free permits to waiters, then summons threads for open work. May drop and retake the lock.
  void settle(Lock&);
  /// Whether another source should be served before more of `source` is.
  bool yields_to_other(Lock&, const Source& source) const noexcept;
  bool someone_waits(Lock&) const noexcept { return !waiters_.empty(); }

  /// Threads that run a task now; the keeper watches their clocks.
  void task_began(Lock&, ThreadState&);
  void task_ended(Lock&, ThreadState&) noexcept;

  /// Body of a summoned thread: takes work off the board until there is none for it.
  void serve(ThreadState& self);
  bool has_free_permit() const noexcept { return running_.load(std::memory_order_relaxed) < most(); }
  /// Somebody waits for a permit, or there is work that one more thread could do.
  bool has_demand() const noexcept { return demand_.load(std::memory_order_relaxed) > 0; }
  /// There is a thread but the caller's to do what it will not do itself, or one can be had now. Throws
  /// std::system_error if the system gives none.
  void need_thread(const ThreadState& self);
  /// Whether an offer is seen at once, without a wake-up.
  bool has_lingering() const noexcept { return lingering_.load(std::memory_order_relaxed) > 0; }
  /// Offers a short region to lingering workers if there are `count` of them and nothing else for them to do. True if
  /// it did; Lane::withdraw() ends that.
  bool offer_lane(Lock&, Lane::User& region, int count) noexcept;
  Lane& lane() noexcept { return lane_; }

  // --- looking in

  Counts counts();
  void reset_peak() noexcept;
  /// Differs in a forked child, where threads that were inside before the fork do not exist.
  std::uint64_t generation() const noexcept { return generation_.load(std::memory_order_relaxed); }

 private:
  friend class ArenaLimit;
  friend class Keeper;
  friend class Lifecycle;
  friend class Workers;

  Arena(int slots, std::string source);

  bool take_free() noexcept;
  void note_peak(int running) noexcept;
  bool enter_full(ThreadState& self);
  void grant(Waiter& waiter) noexcept;
  void queue(Waiter& waiter);
  void forget(Waiter& waiter) noexcept;
  Source* next_source(Lock&, ThreadState& self);
  int wanted(int enough) const noexcept;
  void close_unwanted(Lock&) noexcept;
  bool pressure() const noexcept;
  void summon(Lock&);
  void fetch(Lock&, int count);
  void narrow(Lock&);
  void forget_limits(const ThreadState& self) noexcept;
  void wake_waiters(Lock&) noexcept;
  bool linger(Lock&, ThreadState& self);
  int idle_lingering() const noexcept;
  bool doze(Lock&, ThreadState& self);
  bool serve_lane(ThreadState& self);
  void settle_left() noexcept;

  const int slots_;
  const std::string slots_source_;

  // On lines of their own: what lingering workers watch, what every region writes, what seldom changes.
  static constexpr std::size_t kLine = 64;
  alignas(kLine) Lane lane_;
  alignas(kLine) std::atomic<int> running_{0};
  std::atomic<int> runners_{0};
  std::atomic<int> lingering_{0};
  std::atomic<int> peak_{0};
  alignas(kLine) std::atomic<int> demand_{0};
  std::atomic<int> reclaim_{0};
  std::atomic<int> open_tasks_{0};  // size of tasks_
  std::atomic<int> most_;
  std::atomic<std::uint64_t> generation_{0};
  alignas(kLine) std::mutex mutex_;

  static std::mutex making;  // held while the arena is made

  std::vector<Waiter*> waiters_;
  std::vector<Waiter*> dozing_;
  std::vector<Source*> tasks_;
  std::vector<Source*> regions_;
  std::vector<ThreadState*> in_tasks_;
  std::vector<const ArenaLimit*> limits_;
  int base_;
  int load_ = 0;
  std::atomic<int> share_{1};
  Widths widths_;
  int arriving_ = 0;
  Clock::time_point summoned_at_{};
  std::uint64_t summoned_ = 0;
  std::uint64_t awoken_ = 0;
  std::uint64_t replaced_ = 0;
  std::uint64_t lane_offers_ = 0;

  std::unique_ptr<Workers> workers_;
  std::unique_ptr<Spares> spares_;
  std::unique_ptr<Keeper> keeper_;
};

}  // namespace composable
