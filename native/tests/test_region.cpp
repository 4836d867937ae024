// Regions: every item once, runner numbers, width, nesting, many at once, cancelled, late and forked ones.
#include "../region.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "loops.h"

using namespace composable;
using namespace composable::testing;

TEST(every_item_runs_once_whatever_the_shape) {
  AtRest rest;
  for (const std::size_t items : {0, 1, 2, 3, 7, 64, 1000, 30'000}) {
    for (const int width : {0, 1, 2, 3, rest.slots, 2 * rest.slots, 256, 1000}) {
      for (const std::size_t first : {0, 1, 5, 256}) {
        for (const std::size_t fixed : {std::size_t{0}, std::size_t{1}, std::size_t{7}, std::size_t{1000},
                                        std::numeric_limits<std::size_t>::max()}) {
          Loop({.items = items, .width = width, .first = first, .fixed = fixed}).check();
        }
      }
    }
  }
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(every_item_runs_once_when_blocks_take_time) {
  AtRest rest;
  for (const int width : {1, 2, 3, rest.slots, 300}) {
    for (const std::size_t fixed : {0, 1, 3}) {
      std::atomic<int> turn{0};
      Loop loop({.items = 200, .width = width, .first = 1, .fixed = fixed}, [&](std::size_t, std::size_t, int) {
        spin(std::chrono::microseconds(turn++ % 7 * 5));
        return true;
      });
      loop.check();
      CHECK(loop.crowd().most() <= std::max(1, std::min(width, rest.slots)));
    }
  }
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(free_permits_make_a_region_as_wide_as_it_may_be) {
  AtRest rest;
  for (int width = 1; width <= rest.slots + 1; ++width) {
    const int most = std::min(width, rest.slots);
    Crowd crowd;
    Loop loop({.items = static_cast<std::size_t>(4 * width), .width = width, .fixed = 1}, meeting(crowd, most));
    loop.check();
    CHECK(loop.crowd().most() == most);
  }
  CHECK(rest.arena.counts().peak_running == rest.slots);
}

TEST(a_region_widens_when_permits_become_free) {
  AtRest rest;
  if (rest.slots == 1) return;
  Held held(rest.arena, rest.slots - 1);
  Crowd crowd;
  Loop loop({.items = 200, .width = rest.slots, .fixed = 1},
            [&, meet = meeting(crowd, rest.slots)](std::size_t begin, std::size_t end, int runner) {
              if (begin >= 20) return meet(begin, end, runner);
              spin(10us);
              CHECK(runner == 0);
              if (begin == 19) held.release(rest.slots);
              return true;
            });
  loop.check();
  CHECK(loop.crowd().most() == rest.slots);
  CHECK(rest.arena.counts().peak_running == rest.slots);
}

TEST(runners_step_back_for_a_thread_of_the_program) {
  AtRest rest;
  struct Long {
    std::atomic<bool> shared{false}, over{false};
    Clock::time_point late = Clock::now() + kPatience;
  } state;
  std::thread other([&] {
    if (rest.slots > 1) CHECK(eventually([&] { return state.shared.load(); }));
    for (int i = 0; i < 50; ++i) Loop({.items = 20, .width = rest.slots, .fixed = 1}, spinning(5us)).check();
    state.over = true;
  });
  Region::run(
      rest.arena, this_thread(), {.items = std::numeric_limits<std::size_t>::max(), .width = rest.slots, .fixed = 1},
      [](void* data, std::size_t, std::size_t, int runner, ThreadState&) {
        Long& seen = *static_cast<Long*>(data);
        spin(20us);
        if (runner > 0) seen.shared = true;
        return !seen.over && CHECK(Clock::now() < seen.late);
      },
      &state);
  other.join();
  CHECK(rest.arena.counts().peak_running <= std::max(2, rest.slots));
}

TEST(many_program_threads_at_once_never_exceed_the_larger_of_both_counts) {
  for (int threads : {1, 2, 3, 5}) {
    AtRest rest;
    Crowd crowd;
    std::vector<std::thread> program;
    for (int i = 0; i < threads; ++i) {
      program.emplace_back([&] {
        for (int round = 0; round < 60; ++round) {
          const Region::Shape shape{.items = 60, .width = 2 + round % 5, .fixed = static_cast<std::size_t>(round % 3)};
          Loop(shape, [&](std::size_t, std::size_t, int) {
            crowd.in();
            spin(5us);
            crowd.out();
            return true;
          }).check();
        }
      });
    }
    for (std::thread& thread : program) thread.join();
    CHECK(crowd.most() <= std::max(rest.slots, threads));
    CHECK(rest.arena.counts().peak_running <= std::max(rest.slots, threads));
  }
}

namespace {

void nest(int depth, int width, std::atomic<int>& leaves, Crowd& crowd) {
  const bool had = this_thread().holds.load();
  Loop loop({.items = 5, .width = width, .fixed = 1}, [&, depth](std::size_t, std::size_t, int) {
    CHECK(this_thread().holds.load());
    if (depth == 1) crowd.in();
    spin(4us);
    if (depth == 1) crowd.out();
    if (depth == 1) ++leaves;
    if (depth > 1) nest(depth - 1, width, leaves, crowd);
    return true;
  });
  loop.check();
  CHECK(this_thread().holds.load() == had);
}

}  // namespace

TEST(nested_regions_run_every_item_on_at_most_as_many_threads_as_slots) {
  AtRest rest;
  for (int depth = 1; depth <= 4; ++depth) {
    for (const int width : {2, rest.slots, 64}) {
      std::atomic<int> leaves{0};
      Crowd crowd;
      nest(depth, width, leaves, crowd);
      int expected = 1;
      for (int level = 0; level < depth; ++level) expected *= 5;
      CHECK(leaves == expected);
      CHECK(crowd.most() <= rest.slots);
    }
  }
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(a_caller_that_waits_gives_its_permit_away_and_a_nested_one_takes_it_back) {
  AtRest rest;
  if (rest.slots == 1) return;
  for (const bool nested : {false, true}) {
    ThreadState& self = this_thread();
    if (nested) CHECK(rest.arena.enter(self));
    Crowd crowd;
    bool seen_alone = false;
    Loop loop({.items = 3, .width = 2, .fixed = 1},
              [&, meet = meeting(crowd, 2)](std::size_t begin, std::size_t end, int runner) {
                meet(begin, end, runner);
                if (runner > 0) seen_alone = eventually([&] { return rest.arena.counts().running == 1; });
                return true;
              });
    loop.check();
    CHECK(seen_alone);
    CHECK(self.holds.load() == nested);
    rest.arena.leave(self);
  }
}

TEST(a_cancelled_region_starts_no_more_blocks) {
  AtRest rest;
  for (const int width : {1, 2, rest.slots}) {
    for (const std::size_t fixed : {0, 1, 4}) {
      for (const std::size_t at : {0, 1, 100, 2999}) {
        std::atomic<bool> cancelled{false};
        Loop loop({.items = 3000, .width = width, .fixed = fixed}, [&](std::size_t begin, std::size_t end, int) {
          spin(5us);  // all of them take longer than the kernel lets the one which cancels wait
          if (cancelled) std::this_thread::sleep_for(1ms);  // claimed before; the others take far longer than to cancel
          if (begin > at || at >= end) return true;
          cancelled = true;
          return false;
        });
        loop.run();
        CHECK(cancelled);
        if (at < 2000 && fixed == 1) CHECK(loop.done() < 3000);
      }
    }
  }
}

TEST(runners_that_come_late_find_nothing_and_touch_nothing) {
  AtRest rest;
  for (int i = 0; i < 3000; ++i) {
    // On the heap, so that a sanitizer sees a late touch. Offered, and over at once.
    auto loop = std::make_unique<Loop>(Region::Shape{.items = 3, .width = rest.slots, .fixed = 1}, spinning(4us));
    loop->check();
  }
}

TEST(a_region_that_follows_soon_wakes_a_worker_that_dozes_and_asks_onetbb_for_none) {
  AtRest rest;
  if (rest.slots == 1) return;
  const auto round = [&] { Loop({.items = 40, .width = 2, .fixed = 1}, spinning(20us)).check(); };
  round();
  Counts last = rest.arena.counts();
  auto looked = Clock::now();
  const auto late = looked + kPatience;
  int woken = 0, otherwise = 0;
  while (woken < 60 && CHECK(looked < late)) {
    std::this_thread::sleep_for(500us);  // longer than a worker lingers
    round();
    const Counts now = rest.arena.counts();
    const auto before = std::exchange(looked, Clock::now());
    // Where the machine was busy elsewhere the worker has left meanwhile, or does not doze yet: those are other cases.
    if (looked - before < 3ms) {
      otherwise += now.summoned - last.summoned != now.awoken - last.awoken ? 1 : 0;
      woken += static_cast<int>(now.awoken - last.awoken);
    }
    last = now;
  }
  CHECK(otherwise <= woken / 10);
}

TEST(tiny_regions_by_the_million_leave_nothing_behind) {
  AtRest rest;
  std::atomic<std::uint64_t> items{0};
  const auto body = [](void* count, std::size_t begin, std::size_t end, int, ThreadState&) {
    static_cast<std::atomic<std::uint64_t>*>(count)->fetch_add(end - begin, std::memory_order_relaxed);
    return true;
  };
  constexpr int kRounds = 250'000;
  std::vector<std::thread> program;
  for (int i = 0; i < 4; ++i) {
    program.emplace_back([&] {
      for (int round = 0; round < kRounds; ++round) {
        Region::run(rest.arena, this_thread(), {.items = 4, .width = rest.slots}, body, &items);
      }
    });
  }
  for (std::thread& thread : program) thread.join();
  CHECK(items == std::uint64_t{4} * 4 * kRounds);
  CHECK(rest.arena.counts().peak_running <= std::max(4, rest.slots));
}

#if !defined(__SANITIZE_THREAD__)
TEST(a_child_forked_in_a_block_ends_the_region_and_has_no_runner_left_in_it) {
  AtRest rest;
  const int failed_before = failed_checks.load();
  for (const std::size_t at : {0, 1, 10}) {
    pid_t child = -1;
    Loop loop({.items = 40, .width = rest.slots + 1, .fixed = 1}, [&](std::size_t begin, std::size_t, int runner) {
      // The child's runners are slow, so that one which is left behind is seen.
      if (runner == 0) spin(50us);
      if (runner > 0) std::this_thread::sleep_for(child == 0 ? 20ms : 1ms);
      if (runner == 0 && begin >= at && child < 0) child = fork();
      return true;
    });
    loop.run();
    const bool complete = loop.done() == 40;
    if (child == 0) {
      // What the parent's runners had claimed at the fork is theirs; in the first block there was none.
      const bool right = (at > 0 || complete) && rest.arena.counts().open_regions == 0 &&
                         (at > 0 || loop.crowd().now() == 0) && !this_thread().holds.load();
      Loop({.items = 500, .width = rest.slots}, spinning(2us)).check();
      std::exit(right && failed_checks.load() == failed_before ? 0 : 1);
    }
    CHECK(complete);
    check_ends_well(child);
  }
}

TEST(a_child_forked_in_a_full_arena_leaves_no_region_on_the_board) {
  AtRest rest;
  if (rest.slots == 1) return;
  Held held(rest.arena, rest.slots);
  pid_t child = -1;
  Loop loop({.items = 200, .width = rest.slots, .fixed = 1}, [&](std::size_t begin, std::size_t, int) {
    spin(10us);
    if (begin == 20 && child < 0) child = fork();
    return true;
  });
  loop.check();
  if (child == 0) {
    const Counts now = rest.arena.counts();
    std::exit(now.open_regions == 0 && now.running == 0 && rest.arena.share() == rest.slots ? 0 : 1);
  }
  check_ends_well(child);
}

TEST(a_runner_may_fork) {
  AtRest rest;
  std::atomic<int> forks{0};
  Loop loop({.items = 300, .width = rest.slots, .fixed = 1}, [&](std::size_t, std::size_t, int runner) {
    spin(20us);
    if (runner == 0 || forks.fetch_add(1) >= 3) return true;
    check_in_child([&] { Loop({.items = 500, .width = rest.slots}, spinning(2us)).check(); });
    return true;
  });
  loop.check();
}
#endif

TEST(an_interrupt_cancels_between_blocks) {
  AtRest rest;
  static std::atomic<bool> wanted;
  static std::atomic<const ThreadState*> asked;
  wanted = false;
  Region::interrupted = [](const ThreadState& caller) noexcept {
    asked = &caller;
    return wanted.load();
  };
  for (const std::size_t fixed : {0, 1}) {
    const Region::Shape shape{.items = 2500u * rest.slots, .width = rest.slots, .fixed = fixed, .body_id = 1 + fixed};
    const auto each = [](std::size_t begin, std::size_t end, int) {
      std::this_thread::sleep_for((end - begin) * 100us);
      return true;
    };
    wanted = false;
    Loop whole(shape, each);
    CHECK(whole.run());
    CHECK(whole.done() == shape.items);
    wanted = true;
    Loop cut(shape, each);
    // Without a chunk size, one thread's share is one block.
    CHECK(!cut.run());
    CHECK(rest.slots == 1 && fixed == 0 ? cut.done() == shape.items : cut.done() < shape.items);
    CHECK(asked.load() == &this_thread());
  }
  Region::interrupted = nullptr;
}

TEST(a_forked_child_has_regions_as_wide_as_its_parent) {
  AtRest rest;
  Loop({.items = 1000, .width = rest.slots}, spinning(2us)).check();
  check_in_child([&] {
    Crowd crowd;
    Loop loop({.items = 100, .width = rest.slots, .fixed = 1}, meeting(crowd, rest.slots));
    loop.check();
    CHECK(loop.crowd().most() == rest.slots);
    CHECK(rest.arena.counts().peak_running == rest.slots);
  });
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
