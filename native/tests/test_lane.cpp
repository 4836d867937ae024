// The lane: places and numbers by themselves; then short regions that go by it, and what may happen to them there.
#include "../lane.h"

#include <array>
#include <atomic>
#include <bit>
#include <functional>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "../ticks.h"
#include "loops.h"

using namespace composable;
using namespace composable::testing;

namespace {

struct Nobody final : Lane::User {
  bool run_part(int, ThreadState&) noexcept override { return false; }
  void leave_part(std::unique_lock<std::mutex>&, int, ThreadState&) noexcept override {}
};

constexpr int kRounds = 20'000;
constexpr std::size_t kItems = 40;

/// A body whose cost is known to be small, and workers that linger: the next region of it may go by the lane.
void warm_up(std::uintptr_t body, int width) {
  for (int i = 0; i < 20; ++i) {
    Loop({.items = kItems, .width = width, .body_id = body}, [](std::size_t begin, std::size_t end, int) {
      spin((end - begin) * 1us);
      return true;
    }).check();
  }
}

/// Runs `each` in regions of kItems that are expected to be short, until one of them went by the lane and `run` found
/// what it looks for: a runner may come late. False if that never was.
bool by_the_lane(AtRest& rest, std::uintptr_t body, int width, const std::function<bool(Loop&)>& run,
                 const Loop::Each& each) {
  return eventually([&] {
    warm_up(body, width);
    const auto before = rest.arena.counts().lane_offers;
    Loop loop({.items = kItems, .width = width, .body_id = body}, each);
    const bool found = run(loop);
    return rest.arena.counts().lane_offers > before && found;
  });
}

bool only_check(Loop& loop) {
  loop.check();
  return true;
}

}  // namespace

TEST(places_are_the_lowest_free_numbers_and_end_with_the_offer) {
  Lane lane;
  Nobody user;
  CHECK(!lane.in_use() && !lane.join());
  lane.offer(user, 3);
  CHECK(lane.in_use() && lane.places() == 3 && !lane.is_used());
  const Lane::Place first = lane.join(), second = lane.join();
  CHECK(first.user == &user && first.runner == 1 && second.runner == 2 && lane.is_used());
  CHECK(lane.leave(first, true));
  const Lane::Place again = lane.join();
  CHECK(again.runner == 1);
  CHECK(lane.leave(again, false));
  const Lane::Place third = lane.join();
  CHECK(third.runner == 3 && !lane.join() && !lane.has_place());
  CHECK(lane.withdraw() == ((1u << 2) | (1u << 3)));
  CHECK(!lane.in_use() && !lane.is_used() && !lane.join());
  CHECK(!lane.is_offered(second) && !lane.leave(second, true) && !lane.leave(third, false));
  lane.offer(user, 1);
  CHECK(!lane.leave(second, true));  // of another offer
  CHECK(lane.withdraw() == 0);
  lane.offer(user, Lane::kPlaces);
  lane.shut();
  CHECK(!lane.join() && lane.in_use());
  CHECK(lane.withdraw() == 0);
}

TEST(no_two_threads_have_the_same_place_and_nobody_has_one_of_an_offer_that_is_over) {
  constexpr int kThreads = 4;
  Lane lane;
  std::array<Nobody, 2> users;
  std::array<std::array<std::atomic<bool>, Lane::kPlaces + 1>, 2> busy{};
  std::atomic<int> left_alone{0};  // runners of withdrawn offers that have seen it
  std::atomic<bool> over{false};
  std::vector<std::thread> workers;
  for (int i = 0; i < kThreads; ++i) {
    workers.emplace_back([&, i] {
      std::mt19937 random(static_cast<unsigned>(i));
      while (!over) {
        const Lane::Place place = lane.join();
        if (!place) continue;
        auto& mine = busy[place.user == &users[0] ? 0 : 1][static_cast<std::size_t>(place.runner)];
        CHECK(place.user == &users[0] || place.user == &users[1]);
        CHECK(!mine.exchange(true));
        for (unsigned turns = random() % 64; turns > 0; --turns) relax();
        mine = false;
        if (!lane.leave(place, random() % 2 == 0)) ++left_alone;
      }
    });
  }
  int inside = 0;
  std::mt19937 random(99);
  for (int round = 0; round < kRounds; ++round) {
    lane.offer(users[static_cast<std::size_t>(round % 2)], 1 + static_cast<int>(random() % 3));
    for (unsigned turns = random() % 256; turns > 0; --turns) relax();
    if (random() % 2 == 0) lane.shut();
    inside += std::popcount(lane.withdraw());
    // The next offer is the other user's, so the one after must find nobody of this one left.
    CHECK(eventually([&] { return left_alone == inside; }));
  }
  over = true;
  for (std::thread& worker : workers) worker.join();
}

TEST(short_regions_one_after_the_other_go_by_the_lane) {
  AtRest rest;
  if (rest.slots == 1) return;
  CHECK(by_the_lane(rest, 1, 2, only_check, spinning(1us)));
  const auto before = rest.arena.counts().lane_offers;
  for (int i = 0; i < 2000; ++i) {
    Loop loop({.items = kItems, .width = 2, .body_id = 1}, spinning(1us));
    loop.check();
    CHECK(loop.crowd().most() <= 2);
  }
  CHECK(rest.arena.counts().lane_offers > before);
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(both_threads_of_a_region_in_the_lane_compute_at_once) {
  AtRest rest;
  if (rest.slots == 1) return;
  const auto both = [](Loop& loop) {
    loop.check();
    return loop.crowd().most() == 2;
  };
  CHECK(by_the_lane(rest, 2, 2, both, spinning(5us)));
}

TEST(a_region_in_the_lane_that_lasts_after_all_moves_to_the_board_and_gets_its_runner_back) {
  AtRest rest;
  if (rest.slots == 1) return;
  std::atomic<bool> came_back{false};
  const auto run = [&](Loop& loop) {
    came_back = false;
    loop.check();
    CHECK(loop.crowd().most() <= 2);
    return came_back.load();
  };
  CHECK(by_the_lane(rest, 10, 2, run, [&](std::size_t begin, std::size_t end, int runner) {
    if (begin == 0) {  // a thread of the program needs a permit: where all are in use, a runner's
      std::thread([] { Loop({.items = 20, .width = 1}, spinning(200us)).check(); }).join();
    }
    spin((end - begin) * 300us);
    if (runner > 0 && begin > 20) came_back = true;
    return true;
  }));
  CHECK(rest.arena.counts().peak_running <= std::max(2, rest.slots));
}

TEST(a_caller_in_the_lane_that_waits_long_gives_its_permit_away_and_a_nested_one_takes_it_back) {
  AtRest rest;
  if (rest.slots == 1) return;
  for (const bool nested : {false, true}) {
    ThreadState& self = this_thread();
    std::atomic<bool> seen_alone{false};
    const auto run = [&](Loop& loop) {
      seen_alone = false;
      if (nested) CHECK(rest.arena.enter(self));
      loop.check();
      CHECK(self.holds.load() == nested);
      rest.arena.leave(self);
      return seen_alone.load();
    };
    CHECK(by_the_lane(rest, 30, 2, run, [&](std::size_t, std::size_t, int runner) {
      if (runner > 0) seen_alone = eventually([&] { return rest.arena.counts().running == 1; });
      return true;
    }));
  }
}

TEST(regions_come_and_go_by_the_lane_from_many_threads_while_workers_leave_it) {
  for (const int threads : {1, 2, 3}) {
    AtRest rest;
    std::vector<std::thread> program;
    for (int i = 0; i < threads; ++i) {
      program.emplace_back([&, i] {
        std::mt19937 random(static_cast<unsigned>(i));
        for (int round = 0; round < 1500; ++round) {
          const int width = 2 + static_cast<int>(random() % 3);
          Loop({.items = 30, .width = width, .body_id = 50u + static_cast<unsigned>(i)}, spinning(500ns)).check();
          spin(std::chrono::microseconds(random() % 4 == 0 ? 20 + random() % 20
                                                           : random() % 3));  // the time of lingering
        }
      });
    }
    for (std::thread& thread : program) thread.join();
    CHECK(rest.arena.counts().peak_running <= std::max(rest.slots, threads));
  }
}

TEST(regions_nested_in_a_region_in_the_lane_run_every_item) {
  AtRest rest;
  if (rest.slots == 1) return;
  std::atomic<int> inner{0};
  CHECK(by_the_lane(rest, 60, 2, only_check, [&](std::size_t begin, std::size_t end, int) {
    for (std::size_t item = begin; item < end; ++item) {
      Loop({.items = 20, .width = rest.slots, .body_id = 61}, spinning(300ns)).check();
      ++inner;
    }
    return true;
  }));
  CHECK(inner % kItems == 0 && inner > 0);
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

#if !defined(__SANITIZE_THREAD__)
TEST(a_child_forked_in_the_lane_has_a_lane_of_its_own) {
  AtRest rest;
  if (rest.slots == 1) return;
  for (const bool by_runner : {false, true}) {
    std::atomic<int> forks{0};
    const auto forked = [&](Loop& loop) {
      forks = 0;
      loop.check();
      return forks > 0;
    };
    CHECK(by_the_lane(rest, 70, 2, forked, [&](std::size_t, std::size_t, int runner) {
      spin(2us);
      if ((runner > 0) != by_runner || forks.fetch_add(1) >= 2) return true;
      check_in_child([&] {
        CHECK(!rest.arena.lane().in_use());
        CHECK(by_the_lane(rest, 71, 2, only_check, spinning(1us)));
      });
      return true;
    }));
  }
}
#endif

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
