#include "lifecycle.h"

#include <new>

#include <pthread.h>
#include <unistd.h>

#include "arena.h"
#include "keeper.h"
#include "libraries.h"
#include "runnable.h"
#include "spares.h"
#include "trace.h"
#include "workers.h"

namespace composable {

int Lifecycle::watch() noexcept { return pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

void Lifecycle::serve(Arena& arena) {
  const auto born = arena.generation();
  arena.serve(this_thread());
  if (arena.generation() == born) return;
  if (Arena::hooks.child_ending != nullptr) Arena::hooks.child_ending();
  _exit(0);
}

void Lifecycle::before_fork() {
  Arena::making.lock();
  if (Arena* arena = Arena::existing()) arena->mutex_.lock();
  Libraries::instance().before_fork();
  trace::before_fork();
  RunnableWatch::before_fork();
}

void Lifecycle::after_fork_in_parent() {
  RunnableWatch::after_fork_in_parent();
  trace::after_fork_in_parent();
  Libraries::instance().after_fork_in_parent();
  if (Arena* arena = Arena::existing()) arena->mutex_.unlock();
  Arena::making.unlock();
}

void Lifecycle::after_fork_in_child() {
  RunnableWatch::after_fork_in_child();
  trace::after_fork_in_child();
  Libraries::instance().after_fork_in_child();
  if (Arena* arena = Arena::existing()) empty(*arena);
  Arena::making.unlock();
}

void Lifecycle::empty(Arena& arena) {
  ThreadState& self = this_thread();
  self.tid = gettid();
  self.has_clock = pthread_getcpuclockid(pthread_self(), &self.cpu_clock) == 0;
  for (auto* list : {&arena.tasks_, &arena.regions_}) {
    for (Source* source : *list) source->open_ = false;
    list->clear();
  }
  arena.waiters_.clear();
  arena.dozing_.clear();
  arena.in_tasks_.clear();
  self.parents_tasks = self.task_depth;
  if (self.task_depth > 0) arena.in_tasks_.push_back(&self);
  arena.demand_.store(0);
  arena.reclaim_.store(0);
  arena.open_tasks_.store(0);
  arena.runners_.store(0);
  arena.lane_.withdraw();
  arena.load_ = 0;
  arena.widths_.forget_limits();
  arena.forget_limits(self);
  arena.widths_.govern(0);
  arena.arriving_ = 0;
  arena.lingering_.store(0);
  const int running = self.holds.load() ? 1 : 0;
  arena.running_.store(running);
  arena.peak_.store(running);
  arena.generation_.fetch_add(1);
  arena.workers_->abandon();
  // The old ones are leaked: their condition variables may have had sleepers.
  static_cast<void>(arena.spares_.release());
  static_cast<void>(arena.keeper_.release());
  arena.spares_ = std::make_unique<Spares>(arena);
  arena.keeper_ = std::make_unique<Keeper>(arena);
  arena.mutex_.unlock();
}

}  // namespace composable
