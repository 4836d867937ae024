// Limits: fewer permits for everybody, or fewer threads for what one thread opens; nested, at once, ended in any order, forked.
#include "../arena_limit.h"

#include <atomic>
#include <memory>
#include <stdexcept>
#include <thread>

#include "../region.h"
#include "groups.h"

using namespace composable;
using namespace composable::testing;

namespace {

/// Runs a region of blocks that last; the most threads that were in it at once.
int most_in_region(int width) {
  static Crowd* crowd;
  Crowd here;
  crowd = &here;
  Region::run(
      Arena::instance(), this_thread(), {.items = 60, .width = width, .fixed = 1},
      [](void*, std::size_t, std::size_t, int, ThreadState&) {
        crowd->in();
        std::this_thread::sleep_for(300us);
        crowd->out();
        return true;
      },
      nullptr);
  return here.most();
}

template <typename Error, typename Code>
bool throws(Code&& code) {
  try {
    code();
  } catch (const Error&) {
    return true;
  }
  return false;
}

/// Sets and resets the calling thread's limit.
struct OwnLimit {
  explicit OwnLimit(int count) : outside(std::exchange(this_thread().limit, count)) {}
  ~OwnLimit() { this_thread().limit = outside; }
  const int outside;
};

}  // namespace

TEST(the_smallest_of_several_limits_stands_and_each_ends_by_itself) {
  AtRest rest;
  auto wide = std::make_unique<ArenaLimit>(rest.arena, this_thread(), rest.slots + 5);
  CHECK(rest.arena.most() == rest.slots);
  auto one = std::make_unique<ArenaLimit>(rest.arena, this_thread(), 1);
  auto two = std::make_unique<ArenaLimit>(rest.arena, this_thread(), 2);
  CHECK(rest.arena.most() == 1);
  one.reset();
  CHECK(rest.arena.most() == std::min(2, rest.slots));
  std::thread([&] { two.reset(); }).join();
  wide.reset();
  CHECK(rest.arena.most() == rest.slots);
}

TEST(bad_counts_are_refused) {
  AtRest rest;
  CHECK(throws<std::invalid_argument>([&] { ArenaLimit(rest.arena, this_thread(), 0); }));
  CHECK(throws<std::invalid_argument>([&] { ArenaLimit(rest.arena, this_thread(), -1); }));
  CHECK(throws<std::invalid_argument>([&] { rest.arena.set_base(0); }));
  CHECK(rest.arena.most() == rest.slots);
}

TEST(no_more_than_the_limit_compute) {
  AtRest rest;
  for (int count = 1; count <= rest.slots; ++count) {
    const ArenaLimit limit(rest.arena, this_thread(), count);
    rest.arena.reset_peak();
    CHECK(most_in_region(rest.slots + 3) <= count);
    CHECK(rest.arena.counts().peak_running <= count);
  }
}

TEST(tasks_that_wait_for_a_permit_begin_when_the_limit_ends) {
  GroupsAtRest rest;
  const Group group = make(rest.slots);
  Gate gate;
  {
    const ArenaLimit limit(rest.arena, this_thread(), 1);
    for (int i = 0; i < rest.slots; ++i) submit(group, [&] { gate.meet(rest.slots); });
    std::this_thread::sleep_for(2ms);
    CHECK(gate.most() <= rest.slots);
  }
  CHECK(help(*group, false));
  CHECK(gate.most() == rest.slots);
}

TEST(what_runs_when_a_limit_begins_goes_on_to_its_end) {
  GroupsAtRest rest;
  const Group group = make(rest.slots);
  Gate gate;
  for (int i = 0; i < rest.slots; ++i) submit(group, [&] { gate.wait_open(); });
  CHECK(eventually([&] { return gate.most() == rest.slots; }));
  const ArenaLimit limit(rest.arena, this_thread(), 1);
  rest.arena.reset_peak();
  Crowd after;
  for (int i = 0; i < 20; ++i) {
    submit(group, [&] {
      after.in();
      spin(200us);
      after.out();
    });
  }
  gate.open();
  CHECK(help(*group, false));
  CHECK(after.most() <= rest.slots);
  CHECK(rest.arena.counts().running == 0 || eventually([&] { return rest.arena.counts().running == 0; }));
  rest.arena.reset_peak();
  submit(group, [] {});
  CHECK(help(*group, false) && rest.arena.counts().peak_running <= 1);
}

TEST(a_thread_s_own_limit_bounds_its_regions_and_nobody_else_s) {
  AtRest rest;
  for (int count = 1; count <= rest.slots; ++count) {
    const OwnLimit limit(count);
    CHECK(most_in_region(rest.slots) <= count);
    CHECK(this_thread().limit == count);
  }
  const OwnLimit limit(1);
  int of_other = 0;
  std::thread([&] { of_other = this_thread().limit; }).join();
  CHECK(of_other == 0);
}

TEST(a_thread_s_own_limit_is_shared_out_to_what_is_nested) {
  CHECK(limit_inside(0, 4) == 0 && limit_inside(4, 2) == 2 && limit_inside(3, 2) == 1 && limit_inside(2, 8) == 1);
  CHECK(limited(5, 0) == 5 && limited(5, 3) == 3 && limited(2, 3) == 2);
  GroupsAtRest rest;
  Crowd crowd;
  static Crowd* inner;
  inner = &crowd;
  Group group;
  {
    const OwnLimit limit(2);
    group = make(rest.slots + 2);
  }
  CHECK(group->limit() == 2 && group->limit_inside_tasks() == 1);
  group->set_limit(rest.slots + 9);
  CHECK(group->limit() == 2);
  for (int i = 0; i < 8; ++i) {
    submit(group, [&] {
      CHECK(this_thread().limit == 1);
      Region::run(
          rest.arena, this_thread(), {.items = 10, .width = rest.slots, .fixed = 1},
          [](void*, std::size_t, std::size_t, int, ThreadState&) {
            inner->in();
            spin(100us);
            inner->out();
            return true;
          },
          nullptr);
    });
  }
  CHECK(help(*group, false));
  CHECK(crowd.most() <= 2);
  CHECK(this_thread().limit == 0);
}

TEST(a_child_keeps_the_limits_of_the_thread_that_forked_and_no_others) {
  AtRest rest;
  if (rest.slots < 3) return;
  const ArenaLimit own(rest.arena, this_thread(), 2);
  Gate gate;
  std::thread other([&] {
    const ArenaLimit limit(rest.arena, this_thread(), 1);
    gate.wait_open();
  });
  CHECK(eventually([&] { return rest.arena.most() == 1; }));
  check_in_child([&] {
    CHECK(rest.arena.most() == 2);
    CHECK(most_in_region(rest.slots) <= 2);
  });
  gate.open();
  other.join();
  CHECK(rest.arena.most() == 2);
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
