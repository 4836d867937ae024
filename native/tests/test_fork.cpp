// Forked children: whatever the parent was doing, the child has an empty arena that works, and ends by exit().
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "../region.h"
#include "groups.h"

using namespace composable;
using namespace composable::testing;

TEST(a_child_forked_from_a_busy_arena_has_an_empty_one_with_as_many_slots) {
  GroupsAtRest rest;
  const Group busy = make(rest.slots);
  Gate gate;
  for (int i = 0; i < rest.slots + 3; ++i) submit(busy, [&] { gate.wait_open(); });
  CHECK(eventually([&] { return gate.most() == rest.slots; }));
  for (int round = 0; round < 3; ++round) {
    check_in_child([&] {
      const Counts counts = rest.arena.counts();
      CHECK(counts.forked && counts.running == 0 && counts.open_tasks == 0 && counts.arriving == 0 &&
            counts.waiting == 0);
      const Group group = make(rest.slots + 2);
      Gate inner;
      for (int i = 0; i < rest.slots + 2; ++i) submit(group, [&] { inner.meet(rest.slots + 2); });
      CHECK(help(*group, round == 1));
      CHECK(busy->load().queued == 0 && busy->load().active == 0);
      check_in_child([&] { CHECK(rest.arena.enter(this_thread())); });
    });
  }
  gate.open();
  CHECK(help(*busy));
}

TEST(a_fork_at_any_moment_finds_consistent_lists) {
  GroupsAtRest rest;
  std::atomic<bool> stop{false};
  std::vector<std::thread> churn;
  for (int i = 0; i < 2; ++i) {
    churn.emplace_back([&, i] {
      const Group group = make(3);
      while (!stop) {
        for (int j = 0; j < 5; ++j) {
          submit(group, [&] {
            Region::run(
                rest.arena, this_thread(), {.items = 8, .width = 3, .fixed = 1},
                [](void*, std::size_t, std::size_t, int, ThreadState&) {
                  spin(5us);
                  return true;
                },
                nullptr);
          });
        }
        help(*group, i == 0);
      }
    });
  }
  for (int round = 0; round < 25; ++round) {
    check_in_child([&] {
      const Group group = make(4);
      std::atomic<int> done{0};
      for (int i = 0; i < 20; ++i) submit(group, [&] { ++done; });
      CHECK(help(*group, round % 2 == 0));
      CHECK(done == 20);
    });
  }
  stop = true;
  for (std::thread& thread : churn) thread.join();
}

TEST(a_child_forked_in_a_task_has_no_part_in_its_parents_groups) {
  GroupsAtRest rest;
  for (const bool run : {false, true}) {
    const Group group = make(8);
    const pid_t parent = getpid();
    std::atomic<int> in_child{0};
    for (int i = 0; i < 20; ++i) {
      submit(group, [&, i] {
        if (getpid() != parent) ++in_child;
        if (i != 0) return std::this_thread::sleep_for(1ms);
        check_in_child([&] {
          group->nudge();
          group->set_limit(7);
          CHECK(group->load().queued == 0 && group->load().active == 0);
          std::atomic<int> ran{0};
          for (int j = 0; j < 30; ++j) submit(group, [&] { ++ran; });
          CHECK(help(*group, run));
          CHECK(ran == 30 && in_child == 0);
        });
      });
    }
    CHECK(help(*group, run));
  }
}

#if !defined(__SANITIZE_THREAD__)
TEST(a_child_may_return_from_the_task_it_was_forked_in) {
  GroupsAtRest rest;
  const bool entered = rest.arena.enter(this_thread());
  Held held(rest.arena, rest.slots - 1);  // so that this thread runs all of them
  const Group group = make(8);
  const pid_t parent = getpid();
  pid_t child = -1;
  int in_child = 0;
  for (int i = 0; i < 10; ++i) {
    submit(group, [&] {
      if (getpid() != parent) ++in_child;
      if (child < 0) {
        child = fork();
        if (child == 0) group->submit(new Call([] {}));  // renews the group under the task that is its parent's
      }
    });
  }
  CHECK(help(*group));
  if (child == 0) {
    const TaskGroup::Load load = group->load();
    std::exit(in_child == 0 && load.active == 0 && load.queued == 0 && failed_checks.load() == 0 ? 0 : 1);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (entered) rest.arena.leave(this_thread());
}
#endif

// oneTBB takes leave of the threads it knows at exit, under locks which a worker may have held at the fork.
TEST(children_forked_while_workers_come_and_go_end_by_exit) {
  GroupsAtRest rest;
  std::atomic<bool> stop{false};
  std::thread churn([&] {
    const Group group = make(8);
    while (!stop) {
      for (int i = 0; i < 5; ++i) submit(group, [] {});
      help(*group, false);
    }
  });
  for (int round = 0; round < 150; ++round) check_in_child([] {});
  stop = true;
  churn.join();
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
