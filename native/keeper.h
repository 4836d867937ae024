// The keeper: one thread that sleeps unless work is open and no permit is free. Then it looks at the threads that
// run tasks; one whose CPU clock stands still is blocked (I/O, a lock, another task), and its permit goes to
// someone who can use it.
//
// A thread that waits for the GIL is no such thread: CPython wakes it every switch interval, so its clock moves. A
// thread in a sleep-and-poll loop moves too, hence the second, slow look at how little it moves. The GIL may starve a
// thread for as long, but then somebody has it: the slow look is believed only while the whole process is quiet.
#pragma once

#include <condition_variable>

#include "arena.h"

namespace composable {

class Keeper {
 public:
  explicit Keeper(Arena& arena) : arena_(arena) {}
  /// Work is open and no permit is free. Lock held; starts the thread on first use.
  void alert(Lock&);

 private:
  void run();
  void look(Lock&);
  bool stands_still(ThreadState&) const;
  bool someone_is_ready() const;

  Arena& arena_;
  std::condition_variable wakes_;
  bool started_ = false;
  bool alert_ = false;
};

}  // namespace composable
