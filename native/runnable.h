// How many of the process's threads run, and how many could but get no CPU: the kernel's own account, sampled by a thread.
//
// /proc/self/task/*/schedstat has, per thread, the ns it ran and the ns it was ready and waited for a CPU. Their growth
// between two looks, divided by the time between them, is how many threads did each on average. The watching thread counts
// itself out, and looks as rarely as it must to stay below a few thousandths of a CPU.
#pragma once

#include <cstdint>
#include <vector>

namespace composable {

class RunnableWatch {
 public:
  struct Sample {
    std::uint64_t at;  // ticks; what follows is about the time since the sample before
    float running;     // threads, on average
    float waiting;     // threads that were ready and had no CPU, on average
    std::uint32_t threads;
  };

  /// Starts the thread, which takes no part in anything else. False if there is none to be had, or no schedstat.
  static bool start();
  static void stop() noexcept;
  /// What was seen since start(), without gaps; where it was long, over longer times each.
  static std::vector<Sample> samples();

  static void before_fork() noexcept;
  static void after_fork_in_parent() noexcept;
  static void after_fork_in_child() noexcept;
};

}  // namespace composable
