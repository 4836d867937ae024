// Spare threads: they stand in for workers that wait or are blocked, and do all the work in a forked child, where
// oneTBB's workers do not exist. A spare that found nothing to do for a while ends.
#pragma once

#include <condition_variable>
#include <vector>

#include "thread_state.h"

namespace composable {

class Arena;

class Spares {
 public:
  explicit Spares(Arena& arena) : arena_(arena) {}

  /// Sends an idle spare, or a new one, to Arena::serve(). False if the system gives no thread. Not under the lock.
  bool summon();
  int alive() const noexcept { return alive_; }  // lock held

 private:
  struct Seat {
    std::condition_variable wakes;
    bool called = false;
  };
  void run();

  Arena& arena_;
  std::vector<Seat*> idle_;  // lock held
  int alive_ = 0;            // lock held
};

}  // namespace composable
