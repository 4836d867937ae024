#include "arena_limit.h"

#include <stdexcept>
#include <string>

#include "arena.h"

namespace composable {

ArenaLimit::ArenaLimit(Arena& arena, ThreadState& self, int count) : arena_(arena), owner_(&self), count_(count) {
  if (count < 1) throw std::invalid_argument("a limit must be at least 1, not " + std::to_string(count));
  Lock held = arena.lock();
  arena.limits_.push_back(this);
  arena.narrow(held);
}

ArenaLimit::~ArenaLimit() {
  Lock held = arena_.lock();
  std::erase(arena_.limits_, this);
  arena_.narrow(held);
}

void Arena::narrow(Lock& held) {
  int most = base_;
  for (const ArenaLimit* limit : limits_) most = std::min(most, limit->count());
  most_.store(most, std::memory_order_seq_cst);
  widths_.narrow(most);
  adjust_widths(held);
  settle(held);  // wider: there is work to join
}

void Arena::set_base(int count) {
  if (count < 1) throw std::invalid_argument("a limit must be at least 1, not " + std::to_string(count));
  Lock held = lock();
  base_ = std::min(count, slots_);
  narrow(held);
}

int Arena::base() {
  Lock held = lock();
  return base_;
}

void Arena::forget_limits(const ThreadState& self) noexcept {
  std::erase_if(limits_, [&](const ArenaLimit* limit) { return limit->owner() != &self; });
  int most = base_;
  for (const ArenaLimit* limit : limits_) most = std::min(most, limit->count());
  most_.store(most, std::memory_order_seq_cst);
  widths_.narrow(most);
}

}  // namespace composable
