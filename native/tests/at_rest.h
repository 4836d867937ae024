// What the tests of the running arena share: a test begins and ends with an arena at rest.
#pragma once

#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>
#include <thread>

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../arena.h"
#include "check.h"

namespace composable::testing {

using namespace std::chrono_literals;

constexpr auto kPatience = 20s;  // for what must happen; reached only by a bug

inline bool eventually(const std::function<bool()>& holds) {
  const auto deadline = Clock::now() + kPatience;
  while (!holds()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(200us);
  }
  return true;
}

/// First in a test: at its end no permit is in use, nobody waits, nothing is open or on its way.
class AtRest {
 public:
  AtRest() { arena.reset_peak(); }
  ~AtRest() {
    CHECK(eventually([this] {
      const Counts now = arena.counts();
      return now.running == 0 && now.waiting == 0 && now.open_tasks == 0 && now.open_regions == 0 &&
             now.arriving == 0 && (now.workers_inside == 0 || now.forked);
    }));
    CHECK(!this_thread().holds.load());
    CHECK(this_thread().task_depth == 0);
  }
  Arena& arena = Arena::instance();
  const int slots = arena.slots();
};

/// Holds permits in the name of threads that do not exist, so that a test decides when one becomes free.
class Held {
 public:
  Held(Arena& arena, int count) : arena_(arena), states_(static_cast<std::size_t>(count)) {
    for (ThreadState& state : states_) CHECK(arena.enter(state));
  }
  ~Held() { release(static_cast<int>(states_.size())); }
  void release(int count) {
    for (ThreadState& state : states_) {
      if (count == 0) return;
      if (!state.holds.load()) continue;
      arena_.leave(state);
      --count;
    }
  }
  ThreadState& operator[](std::size_t i) { return states_[i]; }

 private:
  Arena& arena_;
  std::deque<ThreadState> states_;
};

/// The most threads that were between in() and out() at once, counted by the work itself.
class Crowd {
 public:
  int in() {
    const int mine = now_.fetch_add(1) + 1;
    for (int seen = most_.load(); mine > seen && !most_.compare_exchange_weak(seen, mine);) {
    }
    return mine;
  }
  void out() { now_.fetch_sub(1); }
  int now() const { return now_.load(); }
  int most() const { return most_.load(); }

 private:
  std::atomic<int> now_{0}, most_{0};
};

/// Keeps the CPU; a region needs work that takes time before it is shared.
inline void spin(std::chrono::nanoseconds time) {
  const auto end = Clock::now() + time;
  while (Clock::now() < end) {
  }
}

#if defined(__SANITIZE_ADDRESS__)
/// LeakSanitizer asks this at exit. In a child nothing points to what the parent's other threads had on their stacks.
inline std::atomic<bool> is_child{false};
inline const int forks_watched = pthread_atfork(nullptr, nullptr, [] { is_child = true; });
extern "C" [[gnu::visibility("default"), gnu::used]] inline int __lsan_is_turned_off() { return is_child ? 1 : 0; }
#endif

/// The forked process `pid` comes to its end with 0.
inline void check_ends_well(pid_t pid) {
  int status = -1;
  if (!CHECK(eventually([&] { return waitpid(pid, &status, WNOHANG) == pid; }))) {
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/// Runs `child` in a forked process; nothing may fail there, and it must come to its end by exit().
inline void check_in_child(const std::function<void()>& child) {
#if defined(__SANITIZE_THREAD__)
  static_cast<void>(child);  // ThreadSanitizer cannot start threads after a fork
#else
  std::fflush(stderr);
  const pid_t pid = fork();
  if (!CHECK(pid >= 0)) return;
  if (pid == 0) {
    const int before = failed_checks.load();
    child();
    std::exit(failed_checks.load() == before ? 0 : 1);
  }
  check_ends_well(pid);
#endif
}

/// main() of such a test: its argument is the arena's size.
inline int run_with_slots(int argc, char** argv) {
  if (argc > 1) Arena::configure(std::atoi(argv[1]));
  return run_all();
}

}  // namespace composable::testing
