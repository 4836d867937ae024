// Workers that found nothing on the board and stay for a moment.
#include <algorithm>

#include <sched.h>

#include "arena.h"
#include "libraries.h"
#include "ticks.h"

namespace composable {
namespace {

// How long a worker without work watches the board before it leaves: the time between two regions of a loop. Between
// looks it gives its core to whoever else wants it (benchmarks/bench_region_sweep.py).
constexpr double kLingerUs = 30;
constexpr double kYieldUs = 1;

// How long it sleeps before it leaves: the time between two steps of a program. oneTBB, asked for one worker, wakes as
// many as its arena may have, and those who find nothing yield a hundred times before they sleep again; beside a thread
// that computes each yield is a time slice, and the kernel balances its load by them.
constexpr auto kDoze = std::chrono::milliseconds(5);

std::uint64_t in_ticks(double us) noexcept { return static_cast<std::uint64_t>(us * ticks_per_us()); }

}  // namespace

// True if there is work; false when the time was up, and then the board must be looked at once more: what was opened
// meanwhile counted on this thread.
bool Arena::linger(Lock& held, ThreadState& self) {
  const auto born = generation();
  lingering_.fetch_add(1, std::memory_order_relaxed);
  held.unlock();
  std::uint64_t now = ticks();
  std::uint64_t until = now + in_ticks(kLingerUs);
  std::uint64_t yield_at = now + in_ticks(kYieldUs);
  bool found = false;
  for (;;) {
    if (lane_.has_place() && serve_lane(self)) {
      if (generation() != born) break;
      until = ticks() + in_ticks(kLingerUs);
    }
    found = demand_.load(std::memory_order_relaxed) > 0 && has_free_permit();
    now = ticks();
    if (found || now >= until) break;
    if (now >= yield_at) {
      sched_yield();
      yield_at = ticks() + in_ticks(kYieldUs);
    } else {
      relax();
    }
  }
  relock(held);
  if (generation() != born) return false;
  lingering_.fetch_sub(1, std::memory_order_relaxed);
  return found || lane_.has_place();
}

// True if it was summoned. The lock must have been held since the board was found to have nothing for it.
bool Arena::doze(Lock& held, ThreadState& self) {
  if (Libraries::instance().uses_workers()) return false;
  Waiter waiter(self);
  dozing_.push_back(&waiter);
  wait(held, waiter, Clock::now() + kDoze);
  if (!waiter.called) {
    std::erase(dozing_, &waiter);
    return false;
  }
  --arriving_;
  return true;
}

// As many as do not have the lane to go to. Who joins it is no longer counted before its place is taken: so one too many may
// be summoned, never one too few.
int Arena::idle_lingering() const noexcept {
  const int places = lane_.places();
  return std::max(0, lingering_.load(std::memory_order_relaxed) - places);
}

bool Arena::offer_lane(Lock&, Lane::User& region, int count) noexcept {
  if (count > Lane::kPlaces || lane_.in_use() || demand_.load(std::memory_order_relaxed) > 0 ||
      lingering_.load(std::memory_order_relaxed) < count) {
    return false;
  }
  lane_.offer(region, count);
  ++lane_offers_;
  return true;
}

// A lingering worker takes part in what is in the lane. False if there was no place or no permit. Whoever counts on
// lingering workers, or waits for runners to step back, must not miss it meanwhile; so it counts as a runner before it takes
// a permit, and as lingering again before it has left.
bool Arena::serve_lane(ThreadState& self) {
  if (recalls_runners() || !has_free_permit()) return false;
  runners_.fetch_add(1, std::memory_order_seq_cst);
  lingering_.fetch_sub(1, std::memory_order_relaxed);
  const bool permitted = take_free();
  const Lane::Place place = permitted ? lane_.join() : Lane::Place{};
  if (!place) {
    if (permitted) running_.fetch_sub(1, std::memory_order_seq_cst);
    lingering_.fetch_add(1, std::memory_order_relaxed);
    runners_.fetch_sub(1, std::memory_order_seq_cst);
    settle_left();
    return false;
  }
  self.holds.store(true, std::memory_order_relaxed);
  const auto born = generation();
  const bool stepped_back = place.user->run_part(place.runner, self);
  if (generation() != born) return true;
  lingering_.fetch_add(1, std::memory_order_relaxed);
  bool counts = true;  // as a runner, with a permit
  if (lane_.is_offered(place)) {
    if (self.holds.exchange(false, std::memory_order_relaxed)) running_.fetch_sub(1, std::memory_order_seq_cst);
    runners_.fetch_sub(1, std::memory_order_seq_cst);
    if (lane_.leave(place, stepped_back)) {
      settle_left();
      return true;
    }
    counts = false;
  }
  Lock held = lock();
  if (counts) runner_left(held);
  place.user->leave_part(held, place.runner, self);
  if (counts) drop_permit(held, self);
  held.unlock();
  settle_left();
  return true;
}

// What runner_left() and drop_permit() see to, after the same without the lock.
void Arena::settle_left() noexcept {
  if (demand_.load(std::memory_order_seq_cst) == 0) return;
  Lock held = lock();
  if (runners_.load(std::memory_order_seq_cst) == 0) wake_waiters(held);
  settle(held);
}

}  // namespace composable
