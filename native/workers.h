// oneTBB's workers: the only file that includes oneTBB.
//
// oneTBB gives a process P-1 workers because it expects the caller to work too. Tasks that nobody waits for inside
// the arena would then leave a core idle, so P workers are allowed and permits, not oneTBB's arithmetic, bound
// what runs (native/README.md).
#pragma once

#include <atomic>
#include <memory>
#include <string>

namespace composable {

class Arena;

class Workers {
 public:
  Workers(Arena& arena, int slots);
  ~Workers();

  /// oneTBB workers that neither serve the board nor have been summoned. Lock held.
  int idle() const noexcept { return usable() ? slots_ - inside - summoned : 0; }
  /// Starts all of them, once. False if the system does not give so many threads: then spares do the work, of which
  /// those that it gave are the first. Not under the lock.
  bool start();
  /// Sends one to Arena::serve(). False if there are none to send: it is not on its way then. Not under the lock.
  bool summon();

  /// In a forked child: oneTBB's threads are gone and it does not know.
  void abandon() noexcept;

  /// Loaded oneTBB: "2022.3 (interface 12160)".
  static std::string version();

  int inside = 0;    // serving the board, lock held
  int summoned = 0;  // on their way, lock held

 private:
  bool usable() const noexcept { return usable_.load(std::memory_order_relaxed); }
  bool start_each();
  void arrive();
  void serve();

  struct Pool;
  Arena& arena_;
  const int slots_;
  std::atomic<bool> usable_{true};
  std::unique_ptr<Pool> pool_;
};

}  // namespace composable
