#include "tasks.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

#include "ticks.h"
#include "trace.h"

namespace composable {
namespace {

void run_all(TaskGroup& group, Task* first, ThreadState& self) {
  for (Task* task = first; task != nullptr; task = group.next(self)) {
    NestingScope nesting(self, group.nesting(), group.limit_inside_tasks());
    TaskScope scope(group.arena(), self);
    task->run();
  }
}

}  // namespace

TaskGroup::Execute TaskGroup::execute = run_all;

TaskGroup::TaskGroup(Arena& arena, int limit)
    : arena_(arena),
      bound_(this_thread().limit),
      limit_(limited(limit, bound_)),
      depth_(this_thread().task_depth),
      nesting_(this_thread().nesting + 1),
      generation_(arena.generation()) {
  if (limit < 1) throw std::invalid_argument("a group's limit must be at least 1, not " + std::to_string(limit));
}

// The child of a fork has no part in what its parent had queued or running; the parent does it.
void TaskGroup::renew(Lock&) {
  if (generation_ == arena_.generation()) return;
  generation_ = arena_.generation();
  queued_.clear();  // leaked: destroying them could run code of the user's
  waiting_ = 0;
  watchers_.clear();
  active_ = 0;
  counted_ = counted_least_ = most_counted_ = 0;
}

int TaskGroup::present() const noexcept {
  const auto all = static_cast<std::size_t>(active_) + waiting_;
  return static_cast<int>(std::min(all, static_cast<std::size_t>(limit())));
}

bool TaskGroup::recount(Lock& held) noexcept {
  int now = present();
  if (steady_) {
    most_counted_ = std::max(most_counted_, now);
    counted_least_ = std::max(counted_least_, now);
    now = std::min(counted_least_, limit());
  }
  if (now == counted_) return false;
  arena_.add_load(held, now - counted_);
  counted_ = now;
  return true;
}

bool TaskGroup::submit(Task* task, int runs, bool kept) {
  // Here too, so that widths are right before the first task starts, and what the look allocates is not in a worker's
  // heap.
  const bool found = look_for_libraries(this_thread());
  if (!kept) arena_.need_thread(this_thread());
  Lock held = arena_.lock();
  renew(held);
  const bool joins = task->what_ != nullptr && !queued_.empty() && queued_.back()->what_ == task->what_;
  if (joins) {
    task = queued_.back();
  } else {
    queued_.push_back(task);
  }
  task->queued_ += runs;
  task->runs_.fetch_add(runs, std::memory_order_relaxed);
  waiting_ += static_cast<std::size_t>(runs);
  if (recount(held) || found) arena_.adjust_widths(held);
  if (!alive_) alive_ = shared_from_this();
  if (kept && runs == 1) return !joins;  // next() opens the group if this thread does not take it after all
  if (wanted() > 0) {
    tell(Watch::work);
    arena_.open(held, *this);
  }
  arena_.settle(held);
  return !joins;
}

// Who queues for a permit already is woken when it gets one.
void TaskGroup::tell(Watch of) {
  for (const Watcher& watcher : watchers_) {
    if (watcher.watch == of && !watcher.waiter->wants_permit) arena_.call(*watcher.waiter);
  }
}

Task* TaskGroup::pop(Lock& held) {
  Task* task = queued_.front();
  if (--task->queued_ == 0) queued_.pop_front();
  --waiting_;
  ++active_;
  if (wanted() <= 0) arena_.close(held, *this);
  return task;
}

// What it returns must outlive the lock: it may be the last owner.
std::shared_ptr<TaskGroup> TaskGroup::finish(Lock& held, ThreadState& self) {
  --active_;
  ++finished_;
  recount(held);
  if (wanted() > 0) arena_.open(held, *this);
  if (waiting_ > 0 || active_ > 0) {
    tell(Watch::ends);
    return nullptr;
  }
  for (const Watcher& watcher : watchers_) {
    // Who waits in the middle of a task needs a permit to go on: this thread's, at once.
    if (watcher.waiter->self.task_depth > 0) arena_.hand_over(held, self, *watcher.waiter);
    arena_.call(*watcher.waiter);
  }
  return std::move(alive_);
}

int TaskGroup::wanted() const noexcept {
  return std::min(static_cast<int>(std::min<std::size_t>(waiting_, 1u << 20)), limit() - active_);
}

void TaskGroup::work(Lock& held, ThreadState& self) noexcept {
  const std::shared_ptr<TaskGroup> alive = shared_from_this();
  Task* first = pop(held);
  arena_.task_began(held, self);
  self.share = arena_.adjust_widths(held);
  const auto born = arena_.generation();
  arena_.settle(held);
  held.unlock();
  execute(*this, first, self);
  arena_.relock(held);
  if (arena_.generation() != born) return;
  arena_.task_ended(held, self);
  arena_.adjust_widths(held);
}

Task* TaskGroup::next(ThreadState& self) {
  std::shared_ptr<TaskGroup> last;
  Lock held = arena_.lock();
  if (self.parents_tasks >= self.task_depth) return nullptr;
  last = finish(held, self);
  const bool goes_on =
      self.holds.load(std::memory_order_relaxed) && wanted() > 0 && !arena_.yields_to_other(held, *this);
  self.share = arena_.adjust_widths(held);  // before the GIL is let go: who awaits the result must find widths put back
  Task* task = goes_on ? pop(held) : nullptr;
  // What is left, or was kept for this thread, may be for one that is asleep. Or all permits are with tasks that will
  // block: the keeper must know.
  if (wanted() > 0) arena_.settle(held);
  return task;
}

Task* TaskGroup::claim(ThreadState& self) {
  Lock held = arena_.lock();
  renew(held);
  if (wanted() <= 0 || !arena_.try_permit(held, self)) return nullptr;
  Task* task = pop(held);
  arena_.task_began(held, self);
  self.share = arena_.adjust_widths(held);
  if (wanted() > 0) arena_.settle(held);
  return task;
}

void TaskGroup::ended(ThreadState& self) {
  std::shared_ptr<TaskGroup> last;
  Lock held = arena_.lock();
  arena_.task_ended(held, self);
  if (self.parents_tasks > self.task_depth) {
    self.parents_tasks = self.task_depth;
    return;
  }
  last = finish(held, self);
  arena_.adjust_widths(held);
  // A thread of the program runs on while it has tasks of its own, but whoever sleeps in mid-task comes first.
  if (arena_.someone_waits(held)) arena_.drop_permit(held, self);
}

TaskGroup::State TaskGroup::wait(ThreadState& self, Watch watch, std::uint64_t seen, Clock::time_point deadline) {
  Lock held = arena_.lock();
  renew(held);
  const auto idle = [this] { return waiting_ == 0 && active_ == 0; };
  if (idle()) return State::idle;
  if (moved(watch) != seen) return State::moved;
  Waiter waiter(self);
  waiter.wants_permit = watch == Watch::work && wanted() > 0;
  if (waiter.wants_permit) {
    if (arena_.try_permit(held, self)) return State::permit;
  } else {
    arena_.drop_permit(held, self);  // may drop the lock, too
    if (idle()) return State::idle;
    if (moved(watch) != seen || (watch == Watch::work && wanted() > 0)) return State::moved;
  }
  const bool had = self.holds.load(std::memory_order_relaxed);
  watchers_.push_back({&waiter, watch});
  {
    const trace::Scope asleep(self, trace::Kind::wait, static_cast<std::uintptr_t>(trace::For::tasks));
    arena_.wait(held, waiter, deadline);
  }
  std::erase_if(watchers_, [&](const Watcher& watcher) { return watcher.waiter == &waiter; });
  if (idle()) return State::idle;
  if (!had && self.holds.load(std::memory_order_relaxed)) return State::permit;
  return waiter.called ? State::moved : State::late;
}

std::uint64_t TaskGroup::seen(Watch watch) {
  Lock held = arena_.lock();
  return moved(watch);
}

std::deque<Task*> TaskGroup::take_queued(const void* what) {
  std::deque<Task*> taken;
  std::shared_ptr<TaskGroup> last;
  {
    Lock held = arena_.lock();
    renew(held);
    if (what == nullptr) {
      taken.swap(queued_);
    } else {
      std::copy_if(queued_.begin(), queued_.end(), std::back_inserter(taken),
                   [&](const Task* task) { return task->what_ == what; });
      std::erase_if(queued_, [&](const Task* task) { return task->what_ == what; });
    }
    for (const Task* task : taken) waiting_ -= static_cast<std::size_t>(task->queued_);
    recount(held);
    arena_.adjust_widths(held);
    if (wanted() <= 0) arena_.close(held, *this);
    if (waiting_ == 0 && active_ == 0) {
      for (const Watcher& watcher : watchers_) arena_.call(*watcher.waiter);
      last = std::move(alive_);
    }
  }
  return taken;
}

TaskGroup::Load TaskGroup::load() {
  Lock held = arena_.lock();
  renew(held);
  return {static_cast<int>(waiting_), active_};
}

bool TaskGroup::settle_load(bool goes_on) {
  Lock held = arena_.lock();
  renew(held);
  counted_least_ = steady_ && goes_on ? most_counted_ : present();
  most_counted_ = present();
  steady_ = goes_on && counted_least_ > 0;
  if (recount(held)) arena_.adjust_widths(held);
  return steady_;
}

void TaskGroup::nudge() {
  Lock held = arena_.lock();
  renew(held);
  ++finished_;
  ++nudges_;
  for (const Watcher& watcher : watchers_) arena_.call(*watcher.waiter);
}

void TaskGroup::set_limit(int limit) {
  if (limit < 1) throw std::invalid_argument("a group's limit must be at least 1, not " + std::to_string(limit));
  Lock held = arena_.lock();
  renew(held);
  limit_.store(limited(limit, bound_), std::memory_order_relaxed);
  recount(held);
  if (wanted() > 0) {
    arena_.open(held, *this);
  } else {
    arena_.close(held, *this);  // a negative wanted() would hide others' work
  }
  arena_.settle(held);
}

void WidthCeiling::change(int tasks) {
  Lock held = arena_.lock();
  arena_.widths(held).limit(count_, tasks);
  arena_.adjust_widths(held);
}

TaskScope::TaskScope(Arena& arena, ThreadState& self) : kernel_(self), width_(self, look_again(arena, self)) {
  if (self.limit > 0) ceiling_.emplace(arena, self.limit);
}

// A library may have been loaded since the last task began; and more tasks queued since this one was taken off its
// queue, while its thread waited for the GIL.
int TaskScope::look_again(Arena& arena, ThreadState& self) {
  if (look_for_libraries(self)) {
    Lock held = arena.lock();
    arena.adjust_widths(held);
  }
  self.share = limited(arena.share(), self.limit);
  return self.share;
}

ProgramTask::ProgramTask(Arena& arena, ThreadState& self)
    : arena_(arena),
      generation_(arena.generation()),
      began_at_(ticks()),
      began_in_(trace::session()),
      self_(began(arena, self, entered_)),
      scope_(std::make_unique<TaskScope>(arena, self)) {
  self.program_task = this;
}

ThreadState& ProgramTask::began(Arena& arena, ThreadState& self, bool& entered) {
  entered = arena.enter(self);
  Lock held = arena.lock();
  arena.add_load(held, 1);
  arena.task_began(held, self);
  self.share = arena.adjust_widths(held);
  return self;
}

ProgramTask::~ProgramTask() {
  if (abandoned()) return;
  if (began_in_ != 0) {
    trace::record(self_, began_in_,
                  {.begin = began_at_,
                   .end = ticks(),
                   .what = 0,
                   .count = 1,
                   .width = static_cast<std::uint16_t>(self_.share),
                   .kind = trace::Kind::task});
  }
  scope_.reset();
  self_.program_task = nullptr;
  uncount();
}

void ProgramTask::abandon() noexcept {
  // Leaked: it would set widths in a thread whose own libraries may be gone from it.
  static_cast<void>(scope_.release());
  uncount();
  abandoned_.store(true, std::memory_order_release);
}

void ProgramTask::uncount() noexcept {
  {
    Lock held = arena_.lock();
    arena_.task_ended(held, self_);
    if (self_.parents_tasks > self_.task_depth) self_.parents_tasks = self_.task_depth;
    if (arena_.generation() == generation_) arena_.add_load(held, -1);
    arena_.adjust_widths(held);
  }
  if (entered_) arena_.leave(self_);
}

void HelpScope::restore() {
  if (!had_) arena_.leave(self_);
  Lock held = arena_.lock();
  if (had_) arena_.await_permit(held, self_);
  arena_.settle(held);  // the last task that ended here may have made room in its group's limit
}

}  // namespace composable
