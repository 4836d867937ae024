// The arena made narrower than P for a while: for everybody, or for one thread and what it starts.
//
// For everybody: while an ArenaLimit lives at most its count of permits are in use, whoever wants them. Of several the
// smallest stands, and each ends by itself, in any order and by any thread. Who computes when one begins goes on to the end
// of the block or task it is in and then gives its permit back; a thread of the program always runs. When it ends the arena
// is as wide as before at once: work that is open is joined by others.
//
// For a thread: ThreadState::limit, which bounds regions and task groups that the thread opens, and is divided among the
// threads that these use, so that all of them together, however nested, are no more (limit_inside()).
//
// In the child of a fork those of the forking thread go on; those of other threads, which are not there to end them, do not.
#pragma once

#include <algorithm>

namespace composable {

class Arena;
struct ThreadState;

class ArenaLimit {
 public:
  /// Throws std::invalid_argument below 1. A count of P or more changes nothing.
  ArenaLimit(Arena& arena, ThreadState& self, int count);
  ~ArenaLimit();
  ArenaLimit(const ArenaLimit&) = delete;
  ArenaLimit& operator=(const ArenaLimit&) = delete;

  int count() const noexcept { return count_; }
  const ThreadState* owner() const noexcept { return owner_; }

 private:
  Arena& arena_;
  const ThreadState* const owner_;
  const int count_;
};

/// The limit of each of `width` threads that work at once for one with `limit`; 0 is none.
inline int limit_inside(int limit, int width) noexcept {
  return limit == 0 ? 0 : std::max(1, limit / std::max(width, 1));
}

/// How many of `wanted` threads are left under `limit`; 0 is none.
inline int limited(int wanted, int limit) noexcept { return limit == 0 ? wanted : std::min(wanted, limit); }

}  // namespace composable
