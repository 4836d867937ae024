#include "thread_state.h"

#include <pthread.h>
#include <unistd.h>

#include "tasks.h"
#include "trace.h"

namespace composable {

ThreadState::ThreadState() : tid(gettid()), cpu_clock{} {
  has_clock = pthread_getcpuclockid(pthread_self(), &cpu_clock) == 0;
}

// A thread may end in the middle of a task() context that it never leaves.
ThreadState::~ThreadState() {
  if (program_task != nullptr) program_task->abandon();
  if (trace_buffer != nullptr) trace::release(trace_buffer);
}

ThreadState& this_thread() noexcept {
  thread_local ThreadState state;
  return state;
}

}  // namespace composable
