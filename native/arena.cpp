#include "arena.h"

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "keeper.h"
#include "lifecycle.h"
#include "spares.h"
#include "ticks.h"
#include "trace.h"
#include "workers.h"

namespace composable {
namespace {

// How long a region's caller waits for a runner to step back before it runs as one more. Runners look at every
// block, so this is reached only where a single block is longer, or blocked on something the caller holds. In looks, since
// a machine that stood still as a whole has kept nobody waiting.
constexpr auto kReclaimLook = std::chrono::milliseconds(10);
constexpr int kReclaimLooks = 10;

constexpr int kSpinsForLock = 200;

// One summons wakes up to this many; each of them summons on. Keeps the submitting thread's cost bounded.
constexpr int kFanOut = 2;

std::atomic<Arena*> the_arena{nullptr};
int configured = 0;
// Not when the arena is made: a fork while another thread makes it must find it whole, too.
[[maybe_unused]] const int watched = Lifecycle::watch();

template <typename T>
void erase(std::vector<T*>& list, T* item) noexcept {
  list.erase(std::remove(list.begin(), list.end(), item), list.end());
}

}  // namespace

ThreadHooks Arena::hooks;
std::mutex Arena::making;

Arena& Arena::instance() {
  if (Arena* arena = the_arena.load(std::memory_order_acquire)) return *arena;
  std::lock_guard making_lock(making);
  if (Arena* arena = the_arena.load(std::memory_order_acquire)) return *arena;
  const CpuLimits limits = read_cpu_limits();
  auto* arena = configured > 0 && configured != limits.slots ? new Arena(configured, "activate")
                                                             : new Arena(limits.slots, limits.source);
  the_arena.store(arena, std::memory_order_release);
  return *arena;
}

Arena* Arena::existing() noexcept { return the_arena.load(std::memory_order_acquire); }

void Arena::configure(int slots) {
  if (slots < 0) throw std::invalid_argument("slots must be a whole number of at least 1");
  std::lock_guard making_lock(making);
  Arena* arena = existing();
  if (arena != nullptr && slots != 0 && slots != arena->slots_) {
    throw std::logic_error("the arena already runs with " + std::to_string(arena->slots_) +
                           " slots; its size is chosen before its first use");
  }
  configured = slots;
}

int Arena::planned_slots() {
  std::lock_guard making_lock(making);
  if (Arena* arena = existing()) return arena->slots_;
  return configured > 0 ? configured : read_cpu_limits().slots;
}

Arena::Arena(int slots, std::string source)
    : slots_(slots),
      slots_source_(std::move(source)),
      most_(slots),
      base_(slots),
      widths_(slots),
      workers_(std::make_unique<Workers>(*this, slots)),
      spares_(std::make_unique<Spares>(*this)),
      keeper_(std::make_unique<Keeper>(*this)) {}

void Arena::relock(Lock& held) {
  for (int i = 0; i < kSpinsForLock; ++i) {
    if (held.try_lock()) return;
    relax();
  }
  held.lock();
}

// --- permits ---------------------------------------------------------------------------------------------------

void Arena::note_peak(int running) noexcept {
  int peak = peak_.load(std::memory_order_relaxed);
  while (running > peak && !peak_.compare_exchange_weak(peak, running, std::memory_order_relaxed)) {
  }
}

bool Arena::take_free() noexcept {
  int running = running_.load(std::memory_order_seq_cst);
  while (running < most_.load(std::memory_order_seq_cst)) {
    if (running_.compare_exchange_weak(running, running + 1, std::memory_order_seq_cst)) {
      note_peak(running + 1);
      return true;
    }
  }
  return false;
}

bool Arena::enter(ThreadState& self) {
  if (self.holds.load(std::memory_order_relaxed)) return false;
  if (!take_free()) return enter_full(self);
  self.holds.store(true, std::memory_order_relaxed);
  return true;
}

bool Arena::enter_full(ThreadState& self) {
  Lock held = lock();
  if (self.task_depth > 0) {
    await_permit(held, self);
    return true;
  }
  for (int left = kReclaimLooks;;) {
    if (left > 0 && runners_.load(std::memory_order_seq_cst) > 0) {
      const trace::Scope wait(self, trace::Kind::wait, static_cast<std::uintptr_t>(trace::For::permit));
      Waiter waiter(self);
      waiter.wants_permit = waiter.urgent = true;
      queue(waiter);
      settle(held);
      while (left > 0 && !self.holds.load(std::memory_order_relaxed) && runners_.load(std::memory_order_seq_cst) > 0) {
        if (waiter.wakes.wait_for(held, kReclaimLook) == std::cv_status::timeout) --left;
      }
      forget(waiter);
      if (self.holds.load(std::memory_order_relaxed)) return true;
    }
    // Who joins the lane meanwhile counts as a runner before it takes a permit: so one of both sees the other.
    const int running = running_.fetch_add(1, std::memory_order_seq_cst) + 1;
    if (left == 0 || running <= most() || runners_.load(std::memory_order_seq_cst) == 0) {
      note_peak(running);
      self.holds.store(true, std::memory_order_relaxed);
      return true;
    }
    running_.fetch_sub(1, std::memory_order_seq_cst);
  }
}

void Arena::leave(ThreadState& self) noexcept {
  if (!self.holds.exchange(false, std::memory_order_relaxed)) return;
  running_.fetch_sub(1, std::memory_order_seq_cst);
  if (demand_.load(std::memory_order_seq_cst) > 0) {
    Lock held = lock();
    settle(held);
  }
}

bool Arena::try_permit(Lock&, ThreadState& self) noexcept {
  if (self.holds.load(std::memory_order_relaxed)) return true;
  if (!waiters_.empty() || !take_free()) return false;
  self.holds.store(true, std::memory_order_relaxed);
  return true;
}

void Arena::drop_permit(Lock& held, ThreadState& self) {
  if (!self.holds.exchange(false, std::memory_order_relaxed)) return;
  running_.fetch_sub(1, std::memory_order_seq_cst);
  settle(held);
}

void Arena::runner_left(Lock& held) noexcept {
  if (runners_.fetch_sub(1, std::memory_order_seq_cst) > 1) return;
  wake_waiters(held);  // see enter_full
}

void Arena::wake_waiters(Lock&) noexcept {
  for (Waiter* waiter : waiters_) waiter->wakes.notify_one();
}

void Arena::grant(Waiter& waiter) noexcept {
  forget(waiter);
  waiter.self.holds.store(true, std::memory_order_relaxed);
  waiter.wakes.notify_one();
}

void Arena::queue(Waiter& waiter) {
  auto place = waiters_.end();
  if (waiter.urgent) {
    place = std::find_if(waiters_.begin(), waiters_.end(), [](const Waiter* other) { return !other->urgent; });
  }
  waiters_.insert(place, &waiter);
  if (waiter.urgent) reclaim_.fetch_add(1, std::memory_order_relaxed);
  demand_.fetch_add(1, std::memory_order_seq_cst);
}

void Arena::forget(Waiter& waiter) noexcept {
  if (!waiter.wants_permit) return;
  waiter.wants_permit = false;
  if (waiter.urgent) reclaim_.fetch_sub(1, std::memory_order_relaxed);
  erase(waiters_, &waiter);
  demand_.fetch_sub(1, std::memory_order_seq_cst);
}

void Arena::hand_over(Lock&, ThreadState& from, Waiter& to) noexcept {
  if (!to.self.holds.load(std::memory_order_relaxed) && from.holds.exchange(false, std::memory_order_relaxed)) {
    grant(to);
  }
}

void Arena::wait(Lock& held, Waiter& waiter, Clock::time_point deadline) {
  const bool queued = waiter.wants_permit;  // settle() may grant it at once
  if (queued) {
    queue(waiter);
    settle(held);
  }
  while (!waiter.called && !(queued && !waiter.wants_permit)) {
    if (waiter.wakes.wait_until(held, deadline) == std::cv_status::timeout) break;
  }
  forget(waiter);
}

void Arena::await_permit(Lock& held, ThreadState& self) {
  if (try_permit(held, self)) return;
  const trace::Scope wait_scope(self, trace::Kind::wait, static_cast<std::uintptr_t>(trace::For::permit));
  while (!try_permit(held, self)) {
    Waiter waiter(self);
    waiter.wants_permit = waiter.urgent = true;
    wait(held, waiter, Clock::now() + std::chrono::hours(1));
  }
}

// --- widths ----------------------------------------------------------------------------------------------------

int Arena::adjust_widths(Lock&) {
  int load = load_;
  for (const ThreadState* thread : in_tasks_) load -= thread->holds.load(std::memory_order_relaxed) ? 0 : 1;
  widths_.govern(load_ > 0 ? std::max(load, 1) : 0);
  const int share = widths_.share(load);
  share_.store(share, std::memory_order_relaxed);
  return share;
}

// --- the board -------------------------------------------------------------------------------------------------

void Arena::open(Lock&, Source& source) {
  if (source.open_) return;
  source.open_ = true;
  if (source.kind() == Source::Kind::task) {
    auto deeper = std::find_if(tasks_.begin(), tasks_.end(),
                               [&](const Source* other) { return other->depth() > source.depth(); });
    tasks_.insert(deeper, &source);
    open_tasks_.store(static_cast<int>(tasks_.size()), std::memory_order_relaxed);
  } else {
    regions_.push_back(&source);
  }
  demand_.fetch_add(1, std::memory_order_seq_cst);
}

void Arena::close(Lock&, Source& source) noexcept {
  if (!source.open_) return;
  source.open_ = false;
  erase(source.kind() == Source::Kind::task ? tasks_ : regions_, &source);
  open_tasks_.store(static_cast<int>(tasks_.size()), std::memory_order_relaxed);
  demand_.fetch_sub(1, std::memory_order_seq_cst);
}

// Regions of which all is claimed, or which have all the runners they may: lingering workers would come for them in vain. A
// runner that leaves opens its region again.
void Arena::close_unwanted(Lock& held) noexcept {
  for (std::size_t i = 0; i < regions_.size();) {
    if (regions_[i]->wanted() > 0) {
      ++i;
    } else {
      close(held, *regions_[i]);
    }
  }
}

int Arena::wanted(int enough) const noexcept {
  int count = 0;
  for (const auto* list : {&tasks_, &regions_}) {
    for (const Source* source : *list) {
      if (count >= enough) return count;
      count += source->wanted();
    }
  }
  return count;
}

void Arena::settle(Lock& held) {
  while (!waiters_.empty() && take_free()) grant(*waiters_.front());
  summon(held);
}

bool Arena::pressure() const noexcept {
  if (!waiters_.empty()) return true;
  if (has_free_permit() && arriving_ == 0) return false;
  return std::any_of(tasks_.begin(), tasks_.end(), [](const Source* source) { return source->wanted() > 0; });
}

void Arena::summon(Lock& held) {
  const int free = most() - running_.load(std::memory_order_seq_cst);
  const int needed = std::min(free, wanted(free)) - arriving_ - idle_lingering();
  if (needed > 0) {
    int coming = std::min(needed, kFanOut);
    arriving_ += coming;
    summoned_ += static_cast<std::uint64_t>(coming);
    summoned_at_ = Clock::now();
    for (; coming > 0 && !dozing_.empty(); --coming) {
      call(*dozing_.back());
      dozing_.pop_back();
      ++awoken_;
    }
    if (coming > 0) fetch(held, coming);
  }
  if (pressure()) keeper_->alert(held);
}

// Threads that are not inside.
void Arena::fetch(Lock& held, int count) {
  const int from_pool = std::min(count, workers_->idle());
  workers_->summoned += from_pool;
  held.unlock();
  int lost = 0;
  for (int i = 0; i < count; ++i) {
    if (i < from_pool && workers_->summon()) continue;
    lost += spares_->summon() ? 0 : 1;
  }
  held.lock();
  arriving_ -= lost;
}

void Arena::need_thread(const ThreadState& self) {
  if (workers_->start() || self.worker) return;
  {
    Lock held = lock();
    if (spares_->alive() > 0) return;
    ++arriving_;
  }
  if (spares_->summon()) return;
  Lock held = lock();
  --arriving_;
  throw std::system_error(EAGAIN, std::generic_category(), "can't start new thread");
}

bool Arena::yields_to_other(Lock&, const Source& source) const noexcept {
  if (!waiters_.empty() || overdrawn()) return true;
  for (const Source* other : tasks_) {
    if (other->depth() > source.depth()) break;
    if (other != &source && other->wanted() > 0) return true;
  }
  return false;
}

Source* Arena::next_source(Lock& held, ThreadState& self) {
  if (self.holds.load(std::memory_order_relaxed) && !waiters_.empty()) {
    self.holds.store(false, std::memory_order_relaxed);
    grant(*waiters_.front());
  }
  if (overdrawn()) drop_permit(held, self);
  for (auto* list : {&tasks_, &regions_}) {
    if (list == &regions_) close_unwanted(held);
    for (auto place = list->begin(); place != list->end(); ++place) {
      Source* source = *place;
      if (source->wanted() <= 0) continue;
      if (!try_permit(held, self)) return nullptr;
      // In turn: the next look finds the others of this depth first.
      auto last = std::find_if(place, list->end(), [&](const Source* other) {
        return other->kind() == Source::Kind::task && other->depth() > source->depth();
      });
      std::rotate(place, place + 1, last);
      return source;
    }
  }
  return nullptr;
}

void Arena::serve(ThreadState& self) {
  Lock held = lock();
  const auto born = generation();
  --arriving_;
  bool leaves = slots_ == 1;  // the one core is the program's as soon as there is nothing to do
  for (;;) {
    bool worked = false;
    while (Source* source = next_source(held, self)) {
      source->work(held, self);
      if (generation() != born) return;  // this thread forked: the child has its own accounts
      worked = true;
    }
    drop_permit(held, self);
    if (leaves && !worked) {
      if (!doze(held, self)) return;
      leaves = slots_ == 1;
      continue;
    }
    leaves = slots_ == 1 || !linger(held, self);
    if (generation() != born) return;
  }
}

void Arena::task_began(Lock&, ThreadState& self) {
  if (self.task_depth++ > 0) return;
  self.stalled_looks = self.slow_looks = 0;
  self.cpu_mark = self.slow_cpu_mark = -1;
  in_tasks_.push_back(&self);
}

void Arena::task_ended(Lock&, ThreadState& self) noexcept {
  if (--self.task_depth == 0) erase(in_tasks_, &self);
}

// --- looking in ------------------------------------------------------------------------------------------------

Counts Arena::counts() {
  Lock held = lock();
  return {.running = running_.load(std::memory_order_relaxed),
          .peak_running = peak_.load(std::memory_order_relaxed),
          .waiting = static_cast<int>(waiters_.size()),
          .open_tasks = static_cast<int>(tasks_.size()),
          .open_regions = static_cast<int>(regions_.size()),
          .arriving = arriving_,
          .workers_inside = workers_->inside,
          .spares = spares_->alive(),
          .in_tasks = static_cast<int>(in_tasks_.size()),
          .summoned = summoned_,
          .replaced = replaced_,
          .awoken = awoken_,
          .lane_offers = lane_offers_,
          .forked = generation() > 0};
}

void Arena::reset_peak() noexcept { peak_.store(running_.load(std::memory_order_relaxed), std::memory_order_relaxed); }

}  // namespace composable
