#include "keeper.h"

#include <algorithm>
#include <cstdio>
#include <exception>
#include <thread>

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "spares.h"
#include "trace.h"
#include "workers.h"

namespace composable {
namespace {

constexpr auto kLook = std::chrono::milliseconds(10);
// A keeper without alerts for so long ends: a program that is done leaves no thread of it behind.
constexpr auto kKeepIdle = std::chrono::milliseconds(100);
// A clock that did not move over this many looks belongs to a blocked thread. CPython wakes a thread that waits for
// the GIL every 5 ms, so one look would do; the second one guards against a late timer.
constexpr int kStill = 2;
// A thread that used less than 1/50 of this many looks sleeps and polls.
constexpr int kSlowWindow = 30;
constexpr std::int64_t kSlowShare = 50;
// A process that used less than 1/2 of one CPU meanwhile has nobody who computes with the GIL.
constexpr std::int64_t kQuietShare = 2;
// Summoned workers that have not come by now are busy elsewhere (another library's oneTBB arena, a lower limit of
// its global_control): a spare takes the place.
constexpr auto kLate = std::chrono::milliseconds(30);

std::int64_t cpu_ns(clockid_t clock) noexcept {
  timespec time{};
  if (clock_gettime(clock, &time) != 0) return -1;
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

void Keeper::alert(Lock&) {
  if (alert_) return;
  alert_ = true;
  if (!started_) {
    try {
      std::thread([this] { run(); }).detach();
      started_ = true;
    } catch (const std::exception&) {
      alert_ = false;  // no thread to be had now; the next alert tries again
    }
    return;
  }
  wakes_.notify_one();
}

void Keeper::run() {
  pthread_setname_np(pthread_self(), "composable-keep");
  Lock held = arena_.lock();
  for (;;) {
    const auto idle = Clock::now() + kKeepIdle;
    while (!alert_ && wakes_.wait_until(held, idle) != std::cv_status::timeout) {
    }
    if (!alert_) {
      started_ = false;  // the next alert starts another
      return;
    }
    held.unlock();
    std::this_thread::sleep_for(kLook);
    held.lock();
    if (!arena_.pressure()) {
      for (ThreadState* thread : arena_.in_tasks_) thread->stalled_looks = thread->slow_looks = 0;
      alert_ = false;
      continue;
    }
    look(held);
  }
}

// A thread that is ready to run but gets no CPU (quota, crowded host) has a still clock too; only one that
// sleeps is blocked.
bool Keeper::stands_still(ThreadState& thread) const {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread.tid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return true;
  char text[256];
  const ssize_t size = read(file, text, sizeof text - 1);
  close(file);
  if (size <= 0) return true;
  text[size] = '\0';
  const char* end = text;
  for (const char* place = text; *place != '\0'; ++place) {
    if (*place == ')') end = place;
  }
  return end[0] == ')' && end[1] == ' ' && end[2] != 'R';
}

// On a crowded host a process may get little CPU although one of its tasks computes, with the GIL.
bool Keeper::someone_is_ready() const {
  return std::any_of(arena_.in_tasks_.begin(), arena_.in_tasks_.end(), [this](ThreadState* thread) {
    return thread->holds.load(std::memory_order_relaxed) && !stands_still(*thread);
  });
}

void Keeper::look(Lock& held) {
  const std::int64_t all = cpu_ns(CLOCK_PROCESS_CPUTIME_ID);
  for (ThreadState* thread : arena_.in_tasks_) {
    if (!thread->holds.load(std::memory_order_relaxed) || !thread->has_clock) continue;
    const std::int64_t now = cpu_ns(thread->cpu_clock);
    if (now < 0) continue;
    if (thread->cpu_mark < 0) {
      thread->slow_cpu_mark = now;
      thread->slow_all_mark = all;
    }
    const bool moved = now != thread->cpu_mark;
    thread->cpu_mark = now;
    thread->stalled_looks = moved ? 0 : thread->stalled_looks + 1;
    bool blocked = thread->stalled_looks >= kStill;
    if (++thread->slow_looks >= kSlowWindow) {
      const std::int64_t window = kSlowWindow * std::chrono::nanoseconds(kLook).count();
      blocked = blocked || (now - thread->slow_cpu_mark < window / kSlowShare &&
                            all - thread->slow_all_mark < window / kQuietShare && !someone_is_ready());
      thread->slow_looks = 0;
      thread->slow_cpu_mark = now;
      thread->slow_all_mark = all;
    }
    if (!blocked || !stands_still(*thread)) continue;
    if (!thread->holds.exchange(false, std::memory_order_relaxed)) continue;
    ++arena_.replaced_;
    trace::mark(this_thread(), trace::Kind::taken, static_cast<std::uintptr_t>(thread->tid), 1);
    arena_.running_.fetch_sub(1, std::memory_order_seq_cst);
  }
  arena_.settle(held);
  // One at a time: it may be late for the same reason, the GIL for instance.
  if (arena_.arriving_ > 0 && arena_.arriving_ <= arena_.slots_ && Clock::now() - arena_.summoned_at_ > kLate &&
      arena_.has_free_permit()) {
    arena_.summoned_at_ = Clock::now();
    ++arena_.arriving_;
    held.unlock();
    const bool came = arena_.spares_->summon();
    held.lock();
    if (!came) --arena_.arriving_;
  }
}

}  // namespace composable
