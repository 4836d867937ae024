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

namespace detail {

thread_local constinit ThreadState* current = nullptr;

ThreadState& begin_thread() noexcept {
  thread_local ThreadState state;
  current = &state;
  return state;
}

}  // namespace detail

}  // namespace composable
