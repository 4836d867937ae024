#include "thread_state.h"

#include <pthread.h>
#include <unistd.h>

#include "tasks.h"

namespace composable {

ThreadState::ThreadState() : tid(gettid()), cpu_clock{} {
  has_clock = pthread_getcpuclockid(pthread_self(), &cpu_clock) == 0;
}

// A thread may end in the middle of a task() context that it never leaves.
ThreadState::~ThreadState() {
  if (program_task != nullptr) program_task->abandon();
}

ThreadState& this_thread() noexcept {
  thread_local ThreadState state;
  return state;
}

}  // namespace composable
