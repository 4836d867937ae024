// What the tests of task groups share: tasks made of functions, waiting as the bindings do, a place to sleep.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>

#include "../tasks.h"
#include "at_rest.h"

namespace composable::testing {

using Group = std::shared_ptr<TaskGroup>;
using Code = std::function<void()>;

inline std::atomic<int> live_tasks{0};

class Call final : public Task {
 public:
  explicit Call(Code code) : code_(std::move(code)) { ++live_tasks; }
  void run() noexcept override {
    code_();
    drop();
  }
  void drop() noexcept override {
    --live_tasks;
    delete this;
  }

 private:
  const Code code_;
};

inline Group make(int limit) { return std::make_shared<TaskGroup>(Arena::instance(), limit); }

inline void submit(const Group& group, Code code) { group->submit(new Call(std::move(code))); }

/// As the bindings wait: runs the group's tasks if `run`, until it is idle or `stop` says so.
inline bool help(TaskGroup& group, bool run = true, const std::function<bool()>& stop = {}) {
  ThreadState& self = this_thread();
  HelpScope scope(Arena::instance(), self);
  const auto watch = run ? TaskGroup::Watch::work : stop ? TaskGroup::Watch::ends : TaskGroup::Watch::nudges;
  const auto late = Clock::now() + kPatience;
  bool idle = false;
  for (;;) {
    const std::uint64_t seen = group.seen(watch);
    if ((stop && stop()) || !CHECK(Clock::now() < late)) break;
    if (run) {
      if (Task* task = group.claim(self)) {
        CHECK(self.holds.load());
        {
          TaskScope around(Arena::instance(), self);
          task->run();
        }
        group.ended(self);
        continue;
      }
    }
    idle = group.wait(self, watch, seen, late) == TaskGroup::State::idle;
    if (idle) break;
  }
  scope.restore();
  return idle;
}

/// A test of groups: at its end no task is left, run or dropped.
struct GroupsAtRest : AtRest {
  ~GroupsAtRest() {
    CHECK(eventually([] { return live_tasks == 0; }));
  }
};

/// Where tasks wait for one another asleep, as on a lock: eventually() would use too much CPU to count as blocked.
class Gate {
 public:
  /// Until as many are here at once, or were.
  void meet(int enough) {
    wait([&] { return most_ >= enough; });
  }
  void wait_open() {
    wait([&] { return open_; });
  }
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  int most() {
    std::lock_guard lock(mutex_);
    return most_;
  }

 private:
  template <typename Over>
  void wait(Over&& over) {
    std::unique_lock lock(mutex_);
    most_ = std::max(most_, ++here_);
    changed_.notify_all();
    CHECK(changed_.wait_for(lock, kPatience, over));
    --here_;
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  int here_ = 0, most_ = 0;
  bool open_ = false;
};

}  // namespace composable::testing
