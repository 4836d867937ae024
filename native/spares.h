// Spare threads: they stand in for workers that wait or are blocked, and do all the work in a forked child, where
// oneTBB's workers do not exist. A spare that found nothing to do for a while ends.
#pragma once

#include <condition_variable>
#include <vector>

#include "arena.h"

namespace composable {

class Spares {
 public:
  explicit Spares(Arena& arena) : arena_(arena) {}

  /// Sends an idle spare, or a new one, to Arena::serve(). False if the system gives no thread. Not under the lock.
  bool summon();
  int alive() const noexcept { return alive_; }  // lock held
  /// So many threads that were started for something else will come to adopt(). Lock held.
  void expect(int threads) noexcept { alive_ += threads; }
  /// The calling thread is a spare from now on, and for good: another one may not be to be had.
  [[noreturn]] void adopt();

 private:
  struct Seat {
    std::condition_variable wakes;
    bool called = false;
  };
  void run();
  void begin();
  bool await_call(Lock& held, Clock::duration patience);

  Arena& arena_;
  std::vector<Seat*> idle_;  // lock held
  int alive_ = 0;            // lock held
};

}  // namespace composable
