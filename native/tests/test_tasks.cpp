// Task groups: order, limits, help, drop, nesting, and groups that end with their last task.
#include "../tasks.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "../region.h"
#include "groups.h"

using namespace composable;
using namespace composable::testing;

TEST(a_limit_below_one_is_refused) {
  GroupsAtRest rest;
  for (const int limit : {0, -1}) {
    bool refused = false;
    try {
      make(limit);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused);
    refused = false;
    const Group group = make(3);
    try {
      group->set_limit(limit);
    } catch (const std::invalid_argument&) {
      refused = true;
    }
    CHECK(refused && group->limit() == 3);
  }
}

TEST(tasks_start_in_the_order_of_submission) {
  GroupsAtRest rest;
  for (const bool run : {true, false}) {
    const Group group = make(1);
    std::vector<int> order;
    for (int i = 0; i < 500; ++i) submit(group, [&order, i] { order.push_back(i); });
    CHECK(help(*group, run));
    CHECK(order.size() == 500 && std::is_sorted(order.begin(), order.end()));
  }
}

TEST(every_task_of_many_groups_and_submitters_runs_once_within_its_limit_and_the_slots) {
  GroupsAtRest rest;
  constexpr int kGroups = 6, kTasks = 800;
  Crowd all;
  std::vector<std::thread> program;
  for (int g = 0; g < kGroups; ++g) {
    program.emplace_back([&, g] {
      const int limit = 1 + g;
      const Group group = make(limit);
      Crowd crowd;
      std::vector<std::atomic<int>> ran(kTasks);
      for (int i = 0; i < kTasks; ++i) {
        submit(group, [&, i] {
          crowd.in();
          all.in();
          if (i % 16 == 0) spin(5us);
          ++ran[i];
          all.out();
          crowd.out();
        });
        if (i % 100 == 99) help(*group, g % 2 == 0);
      }
      CHECK(help(*group, g % 2 == 0));
      CHECK(std::all_of(ran.begin(), ran.end(), [](const auto& count) { return count == 1; }));
      CHECK(crowd.most() <= limit);
    });
  }
  for (std::thread& thread : program) thread.join();
  CHECK(all.most() <= rest.slots);
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(a_group_uses_every_slot_its_limit_allows) {
  GroupsAtRest rest;
  for (int limit = 1; limit <= rest.slots; ++limit) {
    for (const bool run : {true, false}) {
      const Group group = make(limit);
      Gate gate;
      for (int i = 0; i < 3 * limit; ++i) submit(group, [&] { gate.meet(limit); });
      CHECK(help(*group, run));
      CHECK(gate.most() == limit);
    }
  }
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(a_wait_never_runs_a_stranger) {
  GroupsAtRest rest;
  const Group outer = make(8), strangers = make(8);
  std::atomic<int> left{0};
  for (int i = 0; i < 40; ++i) {
    submit(outer, [&] {
      thread_local bool waits = false;
      CHECK(!waits);
      const Group inner = make(2);
      for (int j = 0; j < 5; ++j) submit(inner, [] { spin(1us); });
      ++left;
      submit(strangers, [&] {
        CHECK(!waits);
        --left;
      });
      waits = true;
      CHECK(help(*inner));
      waits = false;
    });
  }
  CHECK(help(*outer));
  CHECK(help(*strangers));
  CHECK(left == 0);
}

namespace {

int nest(int depth, Crowd& crowd) {
  const Group group = make(3);
  std::atomic<int> leaves{0};
  for (int i = 0; i < 4; ++i) {
    submit(group, [&, depth] {
      CHECK(this_thread().holds.load());
      if (depth > 1) {
        leaves += nest(depth - 1, crowd);
        CHECK(this_thread().holds.load());
      } else {
        crowd.in();
        spin(3us);
        crowd.out();
        ++leaves;
      }
    });
  }
  CHECK(help(*group, depth % 2 == 0));
  return leaves;
}

}  // namespace

TEST(nested_groups_end_on_at_most_as_many_threads_as_slots) {
  GroupsAtRest rest;
  for (int depth = 1, leaves = 4; depth <= 4; ++depth, leaves *= 4) {
    Crowd crowd;
    CHECK(nest(depth, crowd) == leaves);
    CHECK(crowd.most() <= rest.slots);
  }
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(regions_in_tasks_never_exceed_the_slots) {
  GroupsAtRest rest;
  const Group group = make(6);
  struct Sum {
    Crowd crowd;
    std::atomic<int> items{0};
  } sum;
  for (int i = 0; i < 60; ++i) {
    submit(group, [&] {
      Region::run(
          rest.arena, this_thread(), {.items = 40, .width = 4, .fixed = 1},
          [](void* data, std::size_t, std::size_t, int, ThreadState&) {
            Sum& all = *static_cast<Sum*>(data);
            all.crowd.in();
            spin(3us);
            ++all.items;
            all.crowd.out();
            return true;
          },
          &sum);
    });
  }
  CHECK(help(*group));
  CHECK(sum.items == 60 * 40);
  CHECK(sum.crowd.most() <= rest.slots);
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(a_task_submitted_beside_a_long_region_need_not_wait_for_its_end) {
  GroupsAtRest rest;
  if (rest.slots == 1) return;
  const Group group = make(1);
  struct Long {
    const Group& group;
    bool submitted = false;  // by the caller
    std::atomic<int> blocks{0};
    std::atomic<bool> ran{false};
    Clock::time_point late = Clock::now() + kPatience;
  } state{group};
  Region::run(
      rest.arena, this_thread(), {.items = std::numeric_limits<std::size_t>::max(), .width = rest.slots, .fixed = 1},
      [](void* data, std::size_t, std::size_t, int runner, ThreadState&) {
        Long& seen = *static_cast<Long*>(data);
        spin(20us);
        if (runner > 0) ++seen.blocks;
        if (runner == 0 && seen.blocks > 100 && !seen.submitted) {
          seen.submitted = true;
          submit(seen.group, [&] { seen.ran = true; });
        }
        return !seen.ran && CHECK(Clock::now() < seen.late);
      },
      &state);
  CHECK(help(*group));
}

TEST(shallow_groups_come_first_and_equals_take_turns) {
  GroupsAtRest rest;
  Held held(rest.arena, rest.slots);
  std::string order;
  const Group a = make(9), b = make(9);
  ThreadState& self = this_thread();
  ++self.task_depth;  // what a task of this thread would open
  const Group deep = make(9);
  --self.task_depth;
  for (int i = 0; i < 3; ++i) {
    submit(deep, [&] { order += 'd'; });
    submit(a, [&] { order += 'a'; });
    submit(b, [&] { order += 'b'; });
  }
  held.release(1);
  for (const Group& group : {a, b, deep}) CHECK(help(*group, false));
  CHECK(order == "abababddd");
}

TEST(what_is_dropped_never_runs_and_what_runs_ends) {
  GroupsAtRest rest;
  for (int round = 0; round < 200; ++round) {
    const Group group = make(1 + round % 4);
    std::atomic<int> ran{0};
    for (int i = 0; i < 20; ++i) submit(group, [&] { ++ran; });
    std::size_t dropped = 0;
    for (Task* task : group->take_queued()) {
      task->drop();
      ++dropped;
    }
    CHECK(help(*group, round % 2 == 0));
    CHECK(ran + static_cast<int>(dropped) == 20);
    CHECK(group->load().queued == 0 && group->load().active == 0);
  }
}

namespace {

// A task for several runs, as the bindings have it.
class Repeated final : public Task {
 public:
  Repeated(const void* what, Code code) : Task(what), code_(std::move(code)) { ++live_tasks; }
  void run() noexcept override {
    code_();
    end(1);
  }
  void drop() noexcept override { end(queued()); }

 private:
  void end(int runs) noexcept {
    if (!release(runs)) return;
    --live_tasks;
    delete this;
  }
  const Code code_;
};

// Whether it got an entry of its own.
bool submit(const Group& group, const void* what, int runs, Code code) {
  auto* task = new Repeated(what, std::move(code));
  const bool own = group->submit(task, runs);
  if (!own) {
    --live_tasks;
    delete task;
  }
  return own;
}

}  // namespace

TEST(each_run_of_an_entry_is_a_task_in_the_order_of_submission) {
  GroupsAtRest rest;
  for (int round = 0; round < 100; ++round) {
    const Group group = make(1);
    Gate gate;
    int first = 0, second = 0;
    std::string order;
    submit(group, [&] { gate.wait_open(); });
    CHECK(submit(group, &first, 3, [&] { order += 'a'; }));
    CHECK(!submit(group, &first, 2, [&] { order += 'x'; }));  // the entry that is there runs once more
    CHECK(submit(group, &second, 2, [&] { order += 'b'; }));
    CHECK(submit(group, &first, 1, [&] { order += 'c'; }));
    CHECK(submit(group, nullptr, 1, [&] { order += 'd'; }) && submit(group, nullptr, 1, [&] { order += 'e'; }));
    CHECK(group->load().queued >= 10);
    gate.open();
    CHECK(help(*group, round % 2 == 0));
    CHECK(order == "aaaaabbcde");
  }
}

TEST(runs_of_one_entry_meet_up_to_the_limit_and_all_run_once) {
  GroupsAtRest rest;
  for (int limit = 1; limit <= rest.slots + 2; ++limit) {
    const Group group = make(limit);
    Gate gate;
    std::atomic<int> ran{0};
    submit(group, nullptr, 200, [&] {
      gate.meet(limit);
      ++ran;
    });
    CHECK(help(*group, limit % 2 == 0));
    CHECK(ran == 200 && gate.most() == limit);
  }
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(what_is_withdrawn_by_name_leaves_the_rest) {
  GroupsAtRest rest;
  for (int round = 0; round < 200; ++round) {
    const Group group = make(1 + round % 3);
    int first = 0, second = 0;
    std::atomic<int> ran_first{0}, ran_second{0};
    int dropped = 0;
    for (int i = 0; i < 4; ++i) {
      submit(group, &first, 5, [&] { ++ran_first; });
      submit(group, &second, 3, [&] { ++ran_second; });
    }
    const int before = group->load().queued;
    for (Task* task : group->take_queued(&first)) {
      task->drop();
      ++dropped;
    }
    CHECK(dropped <= 4 && group->load().queued <= before);
    CHECK(help(*group, round % 2 == 0));
    CHECK(ran_second == 12 && ran_first <= 20 && (ran_first == 20) == (dropped == 0));
    CHECK(group->load().queued == 0 && group->load().active == 0);
  }
}

TEST(who_watches_for_work_or_nudges_sleeps_through_the_end_of_tasks) {
  using Watch = TaskGroup::Watch;
  GroupsAtRest rest;
  ThreadState& self = this_thread();
  const Group group = make(1);
  Gate gates[3];
  for (Gate& gate : gates) submit(group, [&] { gate.wait_open(); });
  for (const Watch watch : {Watch::nudges, Watch::work}) {
    const std::uint64_t seen = group->seen(watch);
    Gate& gate = gates[watch == Watch::work];
    std::thread opens([&] { gate.open(); });
    TaskGroup::State state;
    do {
      state = group->wait(self, watch, seen, Clock::now() + 5ms);
      CHECK(state == TaskGroup::State::late || (watch == Watch::work && state != TaskGroup::State::idle));
    } while (group->seen(Watch::ends) < (watch == Watch::work ? 2u : 1u));
    opens.join();
    CHECK(group->seen(watch) == seen);
    group->nudge();
    CHECK(group->wait(self, watch, seen, Clock::now() + kPatience) == TaskGroup::State::moved);
  }
  gates[2].open();
  CHECK(help(*group, false));
}

TEST(a_group_that_nobody_owns_lives_until_its_last_task_has_ended) {
  GroupsAtRest rest;
  std::vector<std::weak_ptr<TaskGroup>> groups;
  std::atomic<int> ran{0};
  for (int i = 0; i < 300; ++i) {
    Group group = make(2);
    groups.push_back(group);
    for (int j = 0; j < 3; ++j) submit(group, [&] { ++ran; });
    if (i % 3 == 0) {
      for (Task* task : group->take_queued()) {
        task->drop();
        ++ran;
      }
    }
  }
  CHECK(eventually([&] { return ran == 900; }));
  CHECK(eventually(
      [&] { return std::all_of(groups.begin(), groups.end(), [](auto& group) { return group.expired(); }); }));
}

TEST(a_waiter_is_told_idle_moved_or_late) {
  using Watch = TaskGroup::Watch;
  GroupsAtRest rest;
  ThreadState& self = this_thread();
  const Group group = make(1);
  CHECK(group->wait(self, Watch::ends, 0, Clock::now() + kPatience) == TaskGroup::State::idle);
  Gate gates[2];
  for (Gate& gate : gates) submit(group, [&] { gate.wait_open(); });
  const std::uint64_t seen = group->seen(Watch::ends);
  CHECK(group->wait(self, Watch::ends, seen, Clock::now() + 1ms) == TaskGroup::State::late);
  CHECK(group->wait(self, Watch::ends, seen + 1, Clock::now() + kPatience) == TaskGroup::State::moved);
  std::thread nudge([&] { group->nudge(); });
  CHECK(group->wait(self, Watch::ends, seen, Clock::now() + kPatience) == TaskGroup::State::moved);
  nudge.join();
  CHECK(group->seen(Watch::ends) == seen + 1);
  gates[0].open();
  CHECK(group->wait(self, Watch::ends, seen + 1, Clock::now() + kPatience) == TaskGroup::State::moved);
  CHECK(group->seen(Watch::ends) == seen + 2);
  gates[1].open();
  CHECK(help(*group, false));
}

TEST(a_lowered_limit_hides_no_other_groups_tasks) {
  GroupsAtRest rest;
  if (rest.slots < 3) return;  // one permit is kept, and two tasks or more run
  const Group group = make(rest.slots + 4), other = make(1);
  std::atomic<bool> go{false}, ran{false};
  Crowd crowd;
  for (int i = 1; i < rest.slots; ++i) {
    submit(group, [&] {
      crowd.in();
      while (!go) std::this_thread::yield();
    });
  }
  CHECK(eventually([&] { return crowd.now() == rest.slots - 1; }));
  {
    Held held(rest.arena, 1);
    for (int i = 0; i < 4; ++i) submit(group, [] {});
    group->set_limit(1);
    submit(other, [&] { ran = true; });
  }
  CHECK(eventually([&] { return ran.load(); }));
  go = true;
  CHECK(help(*group, false));
  CHECK(help(*other));
}

TEST(a_raised_limit_starts_more_at_once) {
  GroupsAtRest rest;
  const Group group = make(1);
  Gate gate;
  for (int i = 0; i < rest.slots; ++i) submit(group, [&] { gate.meet(rest.slots); });
  group->set_limit(rest.slots);
  CHECK(help(*group, false));
}

TEST(many_threads_may_help_one_group) {
  GroupsAtRest rest;
  const Group group = make(rest.slots);
  std::atomic<int> ran{0};
  Crowd crowd;
  std::vector<std::thread> program;
  for (int i = 0; i < 6; ++i) {
    program.emplace_back([&] {
      for (int j = 0; j < 200; ++j) {
        submit(group, [&] {
          crowd.in();
          spin(2us);
          ++ran;
          crowd.out();
        });
        if (j % 20 == 0) CHECK(help(*group));
      }
      CHECK(help(*group));
    });
  }
  for (std::thread& thread : program) thread.join();
  CHECK(ran == 6 * 200);
  CHECK(crowd.most() <= rest.slots);
}

TEST(a_gap_between_tasks_that_are_given_one_by_one_is_no_idleness) {
  GroupsAtRest rest;
  if (rest.slots < 2) return;
  const Arena& arena = rest.arena;
  const int alone = arena.share();
  std::atomic<bool> go[3]{};
  for (const bool given_up : {false, true}) {
    const Group group = make(2);
    const auto spin_until = [&](std::atomic<bool>& over) {
      submit(group, [&] {
        while (!over) std::this_thread::yield();
      });
    };
    const auto has_active = [&](int count) { return eventually([&] { return group->load().active == count; }); };
    for (std::atomic<bool>& over : go) over = false;
    spin_until(go[0]);
    spin_until(go[1]);
    CHECK(has_active(2));
    const int shared = arena.share();
    CHECK(shared == rest.slots / 2);
    CHECK(group->settle_load());
    go[0] = true;
    CHECK(has_active(1));
    CHECK(arena.share() == shared);
    spin_until(go[2]);
    CHECK(has_active(2));
    go[1] = true;
    CHECK(has_active(1));
    CHECK(group->settle_load() && arena.share() == shared);  // since the call before there were two
    CHECK(group->settle_load() && arena.share() == rest.slots);
    go[2] = true;
    CHECK(help(*group, false));
    if (given_up) {
      CHECK(!group->settle_load(false));
    } else {
      while (group->settle_load()) continue;
    }
    CHECK(arena.share() == alone);
  }
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
