// Permits and the board: who may compute, who is woken, in which order; with sources and threads made up for it.
#include "../arena.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "at_rest.h"

using namespace composable;
using namespace composable::testing;

namespace {

/// `units` of work, at most `width` at once.
class Units final : public Source {
 public:
  Units(Arena& arena, Kind kind, int depth, int units, int width, std::function<void()> body)
      : arena_(arena), kind_(kind), depth_(depth), left_(units), width_(width), body_(std::move(body)) {}
  ~Units() override { finish(); }
  void start() {
    Lock held = arena_.lock();
    post(held);
    arena_.settle(held);
  }
  void post(Lock& held) {
    if (wanted() > 0) arena_.open(held, *this);
  }
  void finish() {
    CHECK(eventually([this] {
      Lock held = arena_.lock();
      return left_ == 0 && active_ == 0;
    }));
  }
  int wanted() const noexcept override { return std::min(left_, width_ - active_); }
  void work(Lock& held, ThreadState& self) noexcept override {
    CHECK(self.holds.load());
    CHECK(self.worker);
    --left_;
    ++active_;
    if (wanted() <= 0) arena_.close(held, *this);
    arena_.settle(held);
    held.unlock();
    body_();
    held.lock();
    --active_;
    if (wanted() > 0) arena_.open(held, *this);
  }
  Kind kind() const noexcept override { return kind_; }
  int depth() const noexcept override { return depth_; }

 private:
  Arena& arena_;
  const Kind kind_;
  const int depth_;
  int left_;
  const int width_;
  int active_ = 0;
  const std::function<void()> body_;
};

constexpr auto kTask = Source::Kind::task;
constexpr auto kRegion = Source::Kind::region;

template <typename Error>
bool refuses(int slots) {
  try {
    Arena::configure(slots);
  } catch (const Error&) {
    return true;
  }
  return false;
}

}  // namespace

TEST(size_is_chosen_before_first_use_and_then_fixed) {
  AtRest rest;
  CHECK(Arena::existing() == &rest.arena);
  CHECK(refuses<std::invalid_argument>(-1));
  CHECK(refuses<std::logic_error>(rest.slots + 1));
  Arena::configure(rest.slots);
  Arena::configure(0);
  CHECK(Arena::instance().slots() == rest.slots);
}

TEST(a_thread_has_one_permit_however_often_it_enters) {
  AtRest rest;
  ThreadState self;
  CHECK(rest.arena.enter(self));
  CHECK(!rest.arena.enter(self));
  CHECK(rest.arena.counts().running == 1);
  rest.arena.leave(self);
  rest.arena.leave(self);
  CHECK(rest.arena.counts().running == 0);
  CHECK(rest.arena.counts().peak_running == 1);
}

TEST(program_threads_always_run_and_are_counted) {
  AtRest rest;
  {
    Held some(rest.arena, rest.slots);
    CHECK(!rest.arena.overdrawn());
    Held more(rest.arena, 2);
    CHECK(rest.arena.overdrawn());
    CHECK(rest.arena.counts().running == rest.slots + 2);
    Lock held = rest.arena.lock();
    ThreadState other;
    CHECK(!rest.arena.try_permit(held, other));
  }
  CHECK(rest.arena.counts().peak_running == rest.slots + 2);
  rest.arena.reset_peak();
  CHECK(rest.arena.counts().peak_running == 0);
}

TEST(a_waiter_that_is_granted_never_sleeps_on) {
  AtRest rest;
  // All permits but one: the threads below fight for that one, one of them without the lock.
  Held held(rest.arena, rest.slots - 1);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      if (rest.arena.enter(this_thread())) rest.arena.leave(this_thread());
    }
  });
  ThreadState& self = this_thread();
  const auto end = Clock::now() + 1s;
  while (Clock::now() < end) {
    const auto late = Clock::now() + kPatience;
    {
      Lock lock = rest.arena.lock();
      while (!rest.arena.try_permit(lock, self)) {
        Waiter waiter(self);
        waiter.wants_permit = true;
        rest.arena.wait(lock, waiter, late);
        if (!CHECK(Clock::now() < late)) break;
      }
    }
    rest.arena.leave(self);
  }
  stop = true;
  other.join();
}

TEST(waiters_are_served_in_turn_and_before_new_work) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  std::vector<int> order;  // under the arena's lock
  std::vector<std::thread> threads;
  for (int i = 0; i < 5; ++i) {
    threads.emplace_back([&, i] {
      Lock lock = rest.arena.lock();
      rest.arena.await_permit(lock, this_thread());
      order.push_back(i);
      rest.arena.drop_permit(lock, this_thread());
    });
    CHECK(eventually([&] { return rest.arena.counts().waiting == i + 1; }));
  }
  Units work(rest.arena, kTask, 0, 1, 1, [&] {
    Lock lock = rest.arena.lock();
    order.push_back(99);
  });
  work.start();
  CHECK(order.empty());
  held.release(1);
  for (std::thread& thread : threads) thread.join();
  work.finish();
  CHECK(order == std::vector<int>({0, 1, 2, 3, 4, 99}));
}

TEST(who_stopped_in_the_middle_of_something_comes_before_who_could_help) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  std::string order;  // under the arena's lock
  auto queue = [&](char name, bool urgent) {
    return std::thread([&, name, urgent] {
      ThreadState& self = this_thread();
      Lock lock = rest.arena.lock();
      Waiter waiter(self);
      waiter.wants_permit = true;
      waiter.urgent = urgent;
      rest.arena.wait(lock, waiter, Clock::now() + kPatience);
      order += name;
      rest.arena.drop_permit(lock, self);
    });
  };
  std::vector<std::thread> threads;
  for (const auto& [name, urgent] : {std::pair{'c', false}, {'a', true}, {'d', false}, {'b', true}}) {
    threads.push_back(queue(name, urgent));
    const int waiting = static_cast<int>(threads.size());
    CHECK(eventually([&] { return rest.arena.counts().waiting == waiting; }));
  }
  CHECK(rest.arena.overdrawn());
  held.release(1);
  for (std::thread& thread : threads) thread.join();
  CHECK(order == "abcd");
  CHECK(!rest.arena.overdrawn());
}

TEST(a_wait_ends_by_a_call_or_at_its_deadline_and_leaves_nothing_queued) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  ThreadState& self = this_thread();
  Lock lock = rest.arena.lock();
  Waiter late(self);
  late.wants_permit = true;
  rest.arena.wait(lock, late, Clock::now() + 1ms);
  CHECK(!late.called && !late.wants_permit && !self.holds.load());
  CHECK(!rest.arena.someone_waits(lock));
  Waiter called(self);
  std::thread caller([&] {
    Lock other = rest.arena.lock();
    rest.arena.call(called);
  });
  rest.arena.wait(lock, called, Clock::now() + kPatience);
  CHECK(called.called);
  lock.unlock();
  caller.join();
}

TEST(a_handed_over_permit_is_neither_doubled_nor_lost) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  ThreadState receiver;
  {
    Lock lock = rest.arena.lock();
    Waiter waiter(receiver);
    rest.arena.hand_over(lock, held[0], waiter);
    CHECK(receiver.holds.load() && !held[0].holds.load());
    rest.arena.hand_over(lock, held[0], waiter);
    CHECK(receiver.holds.load());
  }
  CHECK(rest.arena.counts().running == rest.slots);
  rest.arena.leave(receiver);
}

TEST(every_free_permit_serves_open_work) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  std::atomic<int> inside{0};
  std::atomic<bool> go{false};
  Units work(rest.arena, kTask, 0, rest.slots + 3, rest.slots + 3, [&] {
    ++inside;
    CHECK(eventually([&] { return go.load(); }));
    --inside;
  });
  work.start();
  for (int free = 1; free <= rest.slots; ++free) {
    CHECK(inside == free - 1);
    held.release(1);  // without the lock: it must see the work by itself
    CHECK(eventually([&] { return inside == free; }));
  }
  CHECK(rest.arena.counts().running == rest.slots);
  go = true;
  work.finish();
  CHECK(rest.arena.counts().peak_running == rest.slots);
}

TEST(shallow_tasks_come_first_then_deep_ones_then_regions_in_turn_within_each) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  std::string order;  // one worker at a time appends to it
  auto add = [&](char name) { return [&order, name] { order += name; }; };
  Units region_a(rest.arena, kRegion, 0, 2, 1, add('R')), region_b(rest.arena, kRegion, 0, 2, 1, add('S'));
  Units deep(rest.arena, kTask, 1, 2, 1, add('d')), a(rest.arena, kTask, 0, 3, 1, add('a'));
  Units b(rest.arena, kTask, 0, 3, 1, add('b'));
  for (Units* units : {&region_a, &deep, &a, &region_b, &b}) units->start();
  held.release(1);
  for (Units* units : {&region_a, &deep, &a, &region_b, &b}) units->finish();
  CHECK(order == "abababddRSRS");
}

TEST(an_opened_source_is_on_the_board_once) {
  AtRest rest;
  Held held(rest.arena, rest.slots);
  Units units(rest.arena, kTask, 0, 1, 1, [] {});
  {
    Lock lock = rest.arena.lock();
    rest.arena.open(lock, units);
    rest.arena.open(lock, units);
  }
  CHECK(rest.arena.counts().open_tasks == 1);
  {
    Lock lock = rest.arena.lock();
    rest.arena.close(lock, units);
    rest.arena.close(lock, units);
  }
  CHECK(rest.arena.counts().open_tasks == 0);
  units.start();
  held.release(1);
}

TEST(workers_step_back_while_program_threads_hold_all_permits) {
  AtRest rest;
  std::atomic<int> done{0};
  Units work(rest.arena, kTask, 0, 200, 3, [&] { ++done; });
  {
    Held held(rest.arena, rest.slots + 2);
    work.start();
    held.release(2);
    std::this_thread::sleep_for(5ms);
    CHECK(done == 0);
  }
  work.finish();
  CHECK(done == 200);
}

TEST(a_random_mixture_leaves_no_permit_behind_and_finishes_all_work) {
  AtRest rest;
  constexpr int kThreads = 4;
  std::atomic<int> expected{0}, done{0};
  Crowd crowd;
  auto compute = [&] {
    crowd.in();
    crowd.out();
  };
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < kThreads; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random(seed);
      ThreadState& self = this_thread();
      for (int round = 0; round < 400; ++round) {
        const int count = 1 + static_cast<int>(random() % 5), width = 1 + static_cast<int>(random() % 4);
        expected += count;
        Units units(rest.arena, random() % 2 ? kTask : kRegion, static_cast<int>(random() % 3), count, width, [&] {
          compute();
          ++done;
        });
        units.start();
        if (random() % 2) {
          const bool entered = rest.arena.enter(self);
          compute();
          if (entered) rest.arena.leave(self);
        } else {
          {
            Lock lock = rest.arena.lock();
            rest.arena.await_permit(lock, self);
          }
          compute();
          rest.arena.leave(self);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(done == expected);
  CHECK(crowd.most() <= rest.slots + kThreads);
  CHECK(rest.arena.counts().peak_running <= rest.slots + kThreads);
}

TEST(spares_end_when_they_have_nothing_to_do) {
  AtRest rest;
  CHECK(eventually([&] { return rest.arena.counts().spares == 0; }));
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
