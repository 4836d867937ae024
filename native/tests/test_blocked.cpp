// Tasks that wait: whom the keeper replaces and whom not, who gets a permit back, how many threads that takes.
#include <atomic>
#include <limits>
#include <thread>

#include "../region.h"
#include "groups.h"

using namespace composable;
using namespace composable::testing;

namespace {

std::atomic<bool> start_slowly{true};
std::atomic<int> threads{0};  // of the arena's own

}  // namespace

// First, while no thread was started yet: each waits for something outside at its start, as for the GIL.
TEST(threads_that_take_long_to_start_are_not_multiplied) {
  GroupsAtRest rest;
  const Group group = make(16);
  std::atomic<int> ran{0};
  for (int i = 0; i < 16; ++i) submit(group, [&] { ++ran; });
  std::this_thread::sleep_for(400ms);
  const Counts counts = rest.arena.counts();
  CHECK(counts.spares <= rest.slots);
  CHECK(counts.arriving <= 2 * rest.slots);
  start_slowly = false;
  CHECK(help(*group));
  CHECK(ran == 16);
}

TEST(tasks_that_wait_for_one_another_are_replaced_up_to_the_limit_and_no_further) {
  GroupsAtRest rest;
  for (const bool run : {true, false}) {
    const int limit = rest.slots + 3;
    const Group group = make(limit);
    Gate gate;
    for (int i = 0; i < limit + 4; ++i) {
      submit(group, [&] {
        gate.meet(limit);
        gate.wait_open();
      });
    }
    std::thread release([&] {
      CHECK(eventually([&] { return gate.most() == limit; }));
      std::this_thread::sleep_for(60ms);
      CHECK(group->load().active == limit);
      CHECK(group->load().queued == 4);
      gate.open();
    });
    CHECK(help(*group, run));
    release.join();
    CHECK(gate.most() == limit);
  }
}

TEST(tasks_that_sleep_and_poll_are_replaced) {
  GroupsAtRest rest;
  const Group group = make(rest.slots + 1);
  std::atomic<int> here{0};
  for (int i = 0; i <= rest.slots; ++i) {
    submit(group, [&] {
      ++here;
      const auto late = Clock::now() + kPatience;
      // Often enough to move between two looks, and far from the share of a CPU that counts as computing.
      while (here <= rest.slots && CHECK(Clock::now() < late)) std::this_thread::sleep_for(4ms);
    });
  }
  CHECK(help(*group, false));
}

TEST(a_task_that_computes_is_never_replaced) {
  GroupsAtRest rest;
  const std::uint64_t before = rest.arena.counts().replaced;
  const Group group = make(rest.slots + 2);
  Crowd crowd;
  for (int i = 0; i < rest.slots + 2; ++i) {
    submit(group, [&] {
      crowd.in();
      spin(100ms);
      crowd.out();
    });
  }
  CHECK(help(*group, false));
  CHECK(rest.arena.counts().replaced == before);
  CHECK(crowd.most() <= rest.slots);
}

TEST(a_task_that_waits_for_the_gil_is_never_replaced) {
  GroupsAtRest rest;
  const std::uint64_t before = rest.arena.counts().replaced;
  const Group group = make(rest.slots + 2);
  // As CPython's: who waits wakes every 5 ms, and may be passed over for long.
  std::mutex mutex;
  std::condition_variable freed;
  bool taken = false;
  for (int i = 0; i < rest.slots + 2; ++i) {
    submit(group, [&, i] {
      std::unique_lock lock(mutex);
      while (taken) freed.wait_for(lock, 5ms);
      taken = true;
      lock.unlock();
      spin(i == 0 ? 500ms : 1ms);
      lock.lock();
      taken = false;
      freed.notify_one();
    });
  }
  CHECK(help(*group, false));
  CHECK(rest.arena.counts().replaced == before);
}

TEST(a_replaced_task_waits_for_a_permit_before_its_region) {
  GroupsAtRest rest;
  const Group group = make(rest.slots + 4);
  Gate gate;
  Crowd computing;
  for (int i = 0; i < rest.slots + 4; ++i) {
    submit(group, [&] {
      gate.meet(rest.slots + 4);
      Region::run(
          rest.arena, this_thread(), {.items = 50, .width = 4, .fixed = 1},
          [](void* crowd, std::size_t, std::size_t, int, ThreadState&) {
            static_cast<Crowd*>(crowd)->in();
            spin(20us);
            static_cast<Crowd*>(crowd)->out();
            return true;
          },
          &computing);
    });
  }
  CHECK(help(*group, false));
  CHECK(rest.arena.counts().replaced > 0);
  CHECK(computing.most() <= rest.slots);
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(a_task_that_stopped_gets_a_permit_back_from_a_region) {
  GroupsAtRest rest;
  const Group group = make(1);
  std::atomic<bool> blocked{false}, back{false};
  submit(group, [&] {
    ThreadState& self = this_thread();
    Lock held = rest.arena.lock();
    rest.arena.drop_permit(held, self);
    blocked = true;
    held.unlock();
    std::this_thread::sleep_for(5ms);
    held.lock();
    rest.arena.await_permit(held, self);
    back = true;
  });
  CHECK(eventually([&] { return blocked.load(); }));
  if (rest.slots > 1) {
    struct Until {
      std::atomic<bool>& back;
      Clock::time_point late;
    } until{back, Clock::now() + kPatience};
    Region::run(
        rest.arena, this_thread(), {.items = std::numeric_limits<std::size_t>::max(), .width = rest.slots, .fixed = 1},
        [](void* data, std::size_t, std::size_t, int, ThreadState&) {
          spin(20us);
          return !static_cast<Until*>(data)->back && CHECK(Clock::now() < static_cast<Until*>(data)->late);
        },
        &until);
  }
  CHECK(help(*group, false));
  CHECK(back);
}

TEST(a_replaced_task_that_ends_has_the_blocked_ones_looked_at_for_what_is_queued) {
  GroupsAtRest rest;
  const Group group = make(rest.slots + 1);
  Gate first, others;
  submit(group, [&] { first.wait_open(); });  // asleep, so replaced
  for (int i = 0; i < rest.slots; ++i) submit(group, [&] { others.wait_open(); });
  submit(group, [&] { others.open(); });
  CHECK(eventually([&] { return group->load().active == rest.slots + 1; }));
  std::this_thread::sleep_for(50ms);  // the limit is reached: the keeper has nothing to do, and rests
  first.open();
  CHECK(help(*group, false));
}

TEST(a_helper_that_stops_leaves_the_rest_to_workers) {
  GroupsAtRest rest;
  // In a task, so that the helper keeps its permit when it stops.
  const Group outer = make(1);
  submit(outer, [&] {
    const Group group = make(1);
    std::atomic<int> ran{0};
    Gate all;
    for (int i = 0; i < 3; ++i) {
      submit(group, [&] {
        std::this_thread::sleep_for(3ms);  // workers that were summoned have come and gone
        if (++ran == 3) all.open();
      });
    }
    help(*group, true, [&] { return ran > 0; });
    // The rest is done by others; with one slot this task is replaced.
    all.wait_open();
    CHECK(help(*group));
  });
  CHECK(help(*outer, false));
}

TEST(a_program_task_has_a_permit_and_is_replaced_while_it_sleeps) {
  GroupsAtRest rest;
  const Group group = make(rest.slots);
  std::atomic<int> ran{0};
  Gate all;
  {
    ProgramTask task(rest.arena, this_thread());
    CHECK(this_thread().holds.load() && this_thread().task_depth == 1);
    for (int i = 0; i < 4; ++i) {
      submit(group, [&] {
        if (++ran == 4) all.open();
      });
    }
    all.wait_open();
  }
  CHECK(!this_thread().holds.load());
  CHECK(help(*group));
}

TEST(no_thread_is_left_but_the_workers) {
  GroupsAtRest rest;
  CHECK(eventually([&] { return rest.arena.counts().spares == 0; }));
  CHECK(eventually([&] { return threads <= rest.slots; }));
}

int main(int argc, char** argv) {
  Arena::hooks.started = [] {
    ++threads;
    while (start_slowly) std::this_thread::sleep_for(1ms);
  };
  Arena::hooks.ending = [] { --threads; };
  return run_with_slots(argc, argv);
}
