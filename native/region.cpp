#include "region.h"

#include <sched.h>

#include <algorithm>
#include <bit>
#include <iterator>

#include "arena_limit.h"
#include "ticks.h"
#include "trace.h"

namespace composable {
namespace {

// benchmarks/bench_regions.py and bench_region_sweep.py are the source of these. The second of a pair is for when a
// worker is there already, lingering, so that an offer costs no wake-up.
struct Cost {
  double measure_us;  // alone for this long, whatever the region is
  double worth_us;    // what must be left for an offer
  double smallest_block_us;
  double large_us;  // expected to take longer than this: offered before the first block
};
constexpr Cost kWakeUp{3, 8, 2, 50};
constexpr Cost kLingering{0.7, 1.2, 0.3, 2};
constexpr double kLongBlockUs = 200;     // a region of longer blocks is on the board even while no permit is free
constexpr double kLargestBlockUs = 500;  // bounds the wait of a program thread that needs a runner's permit
constexpr double kSpinUs = 20;           // the caller's wait for the last blocks before it sleeps
constexpr double kYieldingUs = 80;       // the same while no other work wants its permit: about what a wake-up takes
constexpr double kLaneUs = 100;          // a region that is expected to take longer, or does, is on the board
constexpr double kLookUs = 50e3;         // between two looks for an interrupt
constexpr double kLookAtClockUs = 5;     // blocks that take longer do not feel a look at the clock
constexpr int kBlocksPerLook = 16;       // others
constexpr double kNoticedUs = 0.1;       // a block that takes this much longer than expected is another kind of block

// What regions of a body cost when they were last measured; a wrong or lost entry costs time, never an answer.
struct Learned {
  std::atomic<std::uintptr_t> body_id{0};
  std::atomic<float> us{0};  // of one unit
};
Learned learned[512];

const Cost& cost_of_offer(const Arena& arena) noexcept { return arena.has_lingering() ? kLingering : kWakeUp; }

Learned& learned_of(std::uintptr_t body_id) noexcept {
  return learned[(body_id >> 4 ^ body_id >> 13) % std::size(learned)];
}

}  // namespace

Region::Region(Arena& arena, ThreadState& caller, bool outermost, const Shape& shape, Body body, void* context)
    : arena_(arena),
      caller_(caller),
      limit_(caller.limit),
      outermost_(outermost),
      shape_{shape.items,
             std::min(shape.width, kMostRunners),
             std::max<std::size_t>(shape.first, 1),
             shape.fixed,
             shape.body_id,
             shape.units},
      body_(body),
      context_(context) {}

bool (*Region::interrupted)(const ThreadState&) noexcept = nullptr;

bool Region::run(Arena& arena, ThreadState& self, const Shape& shape, Body body, void* context) {
  if (shape.items == 0) return true;
  if (self.limit > 0) [[unlikely]]
    return run_limited(arena, self, shape, body, context);
  const bool entered = arena.enter(self);
  Region region(arena, self, entered, shape, body, context);
  region.call();
  // Behind the region, so that one which the clock is read for anyway costs no look at it more.
  if (const std::uint32_t session = trace::session(); session != 0) [[unlikely]]
    region.record(session);
  if (entered) arena.leave(self);
  return !region.is_cancelled();
}

// The same under a limit of the thread's; its part of the limit is for what it calls.
bool Region::run_limited(Arena& arena, ThreadState& self, const Shape& shape, Body body, void* context) {
  Shape narrow = shape;
  narrow.width = limited(shape.width, self.limit);
  bool complete;
  const bool entered = arena.enter(self);
  {
    const NestingScope nesting(self, self.nesting, limit_inside(self.limit, narrow.width));
    Region region(arena, self, entered, narrow, body, context);
    region.call();
    if (const std::uint32_t session = trace::session(); session != 0) region.record(session);
    complete = !region.is_cancelled();
  }
  if (entered) arena.leave(self);
  return complete;
}

void Region::record(std::uint32_t session) const noexcept {
  if (began_ == 0) return;  // before the recording
  const std::uint64_t end = ended_ != 0 ? ended_ : ticks();
  trace::record_region(caller_, session,
                       {.begin = began_,
                        .end = end,
                        .what = shape_.body_id,
                        .count = 1,
                        .width = static_cast<std::uint16_t>(caller_.share),
                        .kind = trace::Kind::region});
}

void Region::call() {
  if (shape_.width <= 1 || arena_.most() <= 1) {
    if (trace::on()) [[unlikely]]
      began_ = ticks();
    if (shape_.fixed == 0) {
      run_here(0, shape_.items);
      return;
    }
    blocks_.divide(0, shape_.items, 1, 1, 1, shape_.fixed);
  } else if (shared_at_once()) {
    began_ = ticks();
    expect_interrupt(began_);
    sharers_ = std::min(shape_.width, arena_.most());
    share(0, shape_.items / (8 * static_cast<std::size_t>(sharers_)));
    learn(static_cast<double>(done_ticks_ - began_) / ticks_per_us(), done_here_);
    return;
  } else {
    const std::size_t done = measure();
    if (done == shape_.items || is_cancelled()) return;
    const auto largest = static_cast<std::size_t>(kLargestBlockUs / us_per_item_);
    if (us_per_item_ * static_cast<double>(shape_.items - done) > cost_of_offer(arena_).worth_us) {
      sharers_ = std::min(shape_.width, arena_.most());
      share(done, largest);
      return;
    }
    blocks_.divide(done, shape_.items, 1, smallest_block(), largest, shape_.fixed);
  }
  std::size_t begin, end;
  while (claim(0, begin, end)) run_here(begin, end);
}

// A block in the caller.
void Region::run_here(std::size_t begin, std::size_t end) {
  if (!body_(context_, begin, end, 0, caller_)) {
    cancel();
  } else if (++blocks_unlooked_ >= blocks_per_look_) {
    blocks_unlooked_ = 0;
    look_for_interrupt(ticks());
  }
}

// A look that was due while this thread ran no region is none too many: the interpreter sees to signals by itself.
void Region::expect_interrupt(std::uint64_t now) noexcept {
  const auto interval = static_cast<std::uint64_t>(kLookUs * ticks_per_us());
  if (now > caller_.interrupt_look + interval) caller_.interrupt_look = now + interval;
}

void Region::look_for_interrupt(std::uint64_t now) {
  if (now < caller_.interrupt_look || interrupted == nullptr) return;
  if (interrupted(caller_)) cancel();
  caller_.interrupt_look = now + static_cast<std::uint64_t>(kLookUs * ticks_per_us());
}

bool Region::shared_at_once() noexcept {
  if (shape_.body_id == 0 || shape_.items < 2) return false;
  if (shape_.fixed > 0) return true;  // who chooses a chunk size expects chunks to differ
  const Learned& entry = learned_of(shape_.body_id);
  if (entry.body_id.load(std::memory_order_relaxed) != shape_.body_id) return true;
  us_per_item_ = static_cast<double>(entry.us.load(std::memory_order_relaxed)) * shape_.units;
  return is_large(arena_, us_per_item_ * static_cast<double>(shape_.items));
}

bool Region::is_large(const Arena& arena, double us) noexcept { return us > cost_of_offer(arena).large_us; }

double Region::learned_us(std::uintptr_t body_id) noexcept {
  const Learned& entry = learned_of(body_id);
  if (entry.body_id.load(std::memory_order_relaxed) != body_id) return -1;
  return static_cast<double>(entry.us.load(std::memory_order_relaxed));
}

// Written only where it changes much: many threads may be running small regions of the same body.
void Region::learn(double spent_us, std::size_t items) const noexcept {
  if (shape_.body_id == 0 || items == 0) return;
  Learned& entry = learned_of(shape_.body_id);
  const double us = spent_us / (static_cast<double>(items) * shape_.units);
  const double known = learned_us(shape_.body_id);
  if (known > 0 && us < 1.3 * known && known < 1.3 * us) return;
  entry.us.store(static_cast<float>(us), std::memory_order_relaxed);
  entry.body_id.store(shape_.body_id, std::memory_order_relaxed);
}

// The caller runs the first blocks alone, until it knows what the others cost. Returns how many items that were.
std::size_t Region::measure() {
  const std::uint64_t start = began_ = ticks();
  expect_interrupt(start);
  const double per_us = ticks_per_us();
  const Cost& cost = cost_of_offer(arena_);
  std::size_t begin = 0;
  std::size_t block = shape_.fixed > 0 ? shape_.fixed : shape_.first;
  const bool was_short = us_per_item_ >= 0 && us_per_item_ * static_cast<double>(shape_.items) < cost.measure_us;
  double spent = 0;
  do {
    const std::size_t end = shape_.items - begin > block ? begin + block : shape_.items;
    if (!body_(context_, begin, end, 0, caller_)) {
      cancel();
      return begin;
    }
    begin = end;
    const std::uint64_t now = ticks();
    spent = static_cast<double>(now - start) / per_us;
    if (begin == shape_.items) {
      ended_ = now;
      learn(spent, begin);
      look_for_interrupt(now);
      return begin;
    }
    // By its first block short again: the clock is not worth reading more often.
    if (was_short && spent < 2 * us_per_item_ * static_cast<double>(begin) + kNoticedUs) {
      block = shape_.items;
    } else if (shape_.fixed == 0) {
      block *= 2;
    }
  } while (spent < cost.measure_us);
  learn(spent, begin);
  us_per_item_ = spent / static_cast<double>(begin);
  return begin;
}

// Where the cost of an item is known, no block is so small that claiming it would be felt.
std::size_t Region::smallest_block() const noexcept {
  if (shape_.fixed > 0) return shape_.fixed;
  if (us_per_item_ <= 0) return 1;
  return std::max<std::size_t>(1, static_cast<std::size_t>(cost_of_offer(arena_).smallest_block_us / us_per_item_));
}

bool Region::claim(int runner, std::size_t& begin, std::size_t& end) noexcept {
  return !is_cancelled() && blocks_.claim(runner, begin, end);
}

// In a full arena an offer is taken by nobody and costs the lock twice. So while no permit is free a region of short
// blocks only looks whether one has become free, between its blocks.
void Region::share(std::size_t done, std::size_t largest) {
  const auto born = arena_.generation();
  blocks_.divide(done, shape_.items, sharers_, smallest_block(), largest, shape_.fixed);
  const double longest_us = us_per_item_ * static_cast<double>(blocks_.longest());
  if (us_per_item_ < 0 || longest_us > kLongBlockUs || arena_.has_free_permit()) offer();
  if (us_per_item_ >= 0 && longest_us < kLookAtClockUs) blocks_per_look_ = kBlocksPerLook;
  std::size_t begin, end;
  while (claim(0, begin, end)) {
    run_here(begin, end);
    done_here_ += end - begin;
    if (arena_.generation() != born) continue;  // forked in a block: the runners stayed with the parent
    if (load_ < 0) {
      if (arena_.has_free_permit()) offer();
    } else if (in_lane_ && is_done_with_lane()) {
      offer_on_board();
    }
  }
  done_ticks_ = ticks();
  if (load_ < 0 || arena_.generation() != born) return;
  if (in_lane_) arena_.lane().shut();
  spin_for_runners();  // first without the lock, which they need to leave
  Lock held = arena_.lock();
  closing_ = true;
  leave_lane(held);
  arena_.close(held, *this);
  if (active_.load(std::memory_order_relaxed) > 0) await_runners(held);
  arena_.add_load(held, -load_);
  arena_.adjust_widths(held);
}

void Region::offer() {
  // The caller counts itself only where no task of its own does.
  load_ = sharers_ - (caller_.task_depth > 0 ? 1 : 0);
  look_for_libraries(caller_);  // kernels may call BLAS
  const double expected_us = us_per_item_ * static_cast<double>(shape_.items);
  Lock held = arena_.lock();
  arena_.add_load(held, load_);
  arena_.adjust_widths(held);
  in_lane_ = us_per_item_ >= 0 && expected_us < kLaneUs && arena_.offer_lane(held, *this, sharers_ - 1);
  if (in_lane_) return;
  arena_.open(held, *this);
  arena_.settle(held);
}

// It lasts, or nobody is there any more who could take a free place.
bool Region::is_done_with_lane() const noexcept {
  return static_cast<double>(ticks() - began_) > kLaneUs * ticks_per_us() ||
         (arena_.lane().has_place() && !arena_.has_lingering());
}

// Who is still inside counts as one of the board's runners.
void Region::leave_lane(Lock&) noexcept {
  if (!in_lane_) return;
  in_lane_ = false;
  const std::uint64_t inside = arena_.lane().withdraw();
  taken_[0] |= inside;
  active_.store(std::popcount(inside), std::memory_order_relaxed);
}

void Region::offer_on_board() {
  Lock held = arena_.lock();
  leave_lane(held);
  if (wanted() > 0) arena_.open(held, *this);
  arena_.settle(held);
}

// A runner that was woken late has as much left when the caller is done. If the caller slept now, its own wake-up would
// outlast the time for which the worker lingers, and the next region's worker would be late again.
void Region::spin_for_runners() const noexcept {
  const auto is_inside = [this] {
    return in_lane_ ? arena_.lane().is_used() : active_.load(std::memory_order_acquire) > 0;
  };
  const auto within = [this](double us) {
    return ticks() - done_ticks_ < static_cast<std::uint64_t>(us * ticks_per_us());
  };
  while (is_inside()) {
    if (within(kSpinUs)) {
      relax();
    } else if (within(kYieldingUs) && !arena_.has_demand()) {
      sched_yield();
    } else {
      return;
    }
  }
}

void Region::await_runners(Lock& held) {
  const trace::Scope wait(caller_, trace::Kind::wait, static_cast<std::uintptr_t>(trace::For::runners));
  Waiter waiter(caller_);
  caller_waits_ = &waiter;
  arena_.drop_permit(held, caller_);
  while (active_.load(std::memory_order_acquire) > 0) waiter.wakes.wait(held);
  if (!outermost_) arena_.await_permit(held, caller_);
}

int Region::wanted() const noexcept {
  if (closing_ || is_cancelled() || !blocks_.any_left()) return 0;
  return shape_.width - 1 - active_.load(std::memory_order_relaxed);
}

int Region::take_runner(Lock&) noexcept {
  for (int word = 0;; ++word) {
    if (const int bit = std::countr_one(taken_[word]); bit < 64) {
      taken_[word] |= std::uint64_t{1} << bit;
      return word * 64 + bit;
    }
  }
}

void Region::work(Lock& held, ThreadState& self) noexcept {
  const int runner = take_runner(held);
  active_.fetch_add(1, std::memory_order_relaxed);
  if (wanted() <= 0) arena_.close(held, *this);
  arena_.runner_joined(held);
  const auto born = arena_.generation();
  arena_.settle(held);
  held.unlock();

  run_part(runner, self);

  arena_.relock(held);
  if (arena_.generation() != born) return;
  arena_.runner_left(held);
  leave_part(held, runner, self);
}

bool Region::run_part(int runner, ThreadState& self) noexcept {
  const NestingScope nesting(self, self.nesting, limit_);
  const trace::Scope part(self, trace::Kind::runner, shape_.body_id);
  Arena& arena = arena_;
  const auto born = arena.generation();
  std::size_t begin, end;
  while (claim(runner, begin, end)) {
    const bool more = body_(context_, begin, end, runner, self);
    // A child forked in the block has no caller, and the stack that this region lives on may be another thread's.
    if (arena.generation() != born) return false;
    if (!more) cancel();
    if (arena.recalls_runners()) return true;
  }
  return false;
}

void Region::leave_part(Lock& held, int runner, ThreadState& self) noexcept {
  taken_[runner / 64] &= ~(std::uint64_t{1} << (runner % 64));
  const int left = active_.fetch_sub(1, std::memory_order_release) - 1;
  if (wanted() > 0) arena_.open(held, *this);
  if (left == 0 && caller_waits_ != nullptr) {
    if (!outermost_) arena_.hand_over(held, self, *caller_waits_);
    arena_.call(*caller_waits_);
  }
}

}  // namespace composable
