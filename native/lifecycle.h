// What happens to the arena when the process forks.
//
// The parent pays for one lock. The child finds the board consistent, empties it and goes on with spares in the
// place of oneTBB's workers, which do not exist there: oneTBB cannot be told so, and joining its workers before
// every fork would cost every parent what only few children need.
#pragma once

namespace composable {

class Arena;

class Lifecycle {
 public:
  /// Registers the fork handlers. Called once, when the core is loaded.
  static int watch() noexcept;

  /// Arena::serve() of a thread of the arena's own. Ends the child of a fork whose task has returned to it: the child
  /// has nowhere to go on, for whoever waits for the task is in the parent. Left to sleep, it would never end.
  static void serve(Arena& arena);

 private:
  static void before_fork();
  static void after_fork_in_parent();
  static void after_fork_in_child();
  static void empty(Arena& arena);
};

}  // namespace composable
