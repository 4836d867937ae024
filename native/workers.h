// oneTBB's workers: the only file that includes oneTBB.
//
// oneTBB gives a process P-1 workers because it expects the caller to work too. Tasks that nobody waits for inside
// the arena would then leave a core idle, so P workers are allowed and permits, not oneTBB's arithmetic, bound
// what runs (native/README.md).
#pragma once

#include <memory>
#include <string>

namespace composable {

class Arena;

class Workers {
 public:
  Workers(Arena& arena, int slots);
  ~Workers();

  /// oneTBB workers that neither serve the board nor have been summoned. Lock held.
  int idle() const noexcept { return abandoned_ ? 0 : slots_ - inside - summoned; }
  /// Sends one to Arena::serve(). Not under the lock.
  void summon();

  /// In a forked child: oneTBB's threads are gone and it does not know.
  void abandon() noexcept;

  /// Loaded oneTBB: "2022.3 (interface 12160)".
  static std::string version();

  int inside = 0;    // serving the board, lock held
  int summoned = 0;  // on their way, lock held

 private:
  void serve();

  struct Pool;
  Arena& arena_;
  const int slots_;
  bool abandoned_ = false;
  std::unique_ptr<Pool> pool_;
};

}  // namespace composable
