#include "thread_state.h"

#include <pthread.h>
#include <unistd.h>

namespace composable {

ThreadState::ThreadState() : tid(gettid()), cpu_clock{} {
  has_clock = pthread_getcpuclockid(pthread_self(), &cpu_clock) == 0;
}

ThreadState& this_thread() noexcept {
  thread_local ThreadState state;
  return state;
}

}  // namespace composable
