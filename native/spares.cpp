#include "spares.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <exception>
#include <thread>

#include <pthread.h>

#include "arena.h"
#include "lifecycle.h"

namespace composable {
namespace {

// Long enough for a burst of nested calls to find its spares again, short enough that a program which no longer
// nests does not keep them.
constexpr auto kKeepIdle = std::chrono::milliseconds(100);

}  // namespace

bool Spares::summon() {
  {
    Lock held = arena_.lock();
    if (!idle_.empty()) {
      Seat* seat = idle_.back();
      idle_.pop_back();
      seat->called = true;
      seat->wakes.notify_one();
      return true;
    }
    ++alive_;
  }
  try {
    std::thread([this] { run(); }).detach();
    return true;
  } catch (const std::exception&) {  // no thread, or memory, to be had: those who wait go on without it
    Lock held = arena_.lock();
    --alive_;
    return false;
  }
}

void Spares::begin() {
  this_thread().worker = true;
  static std::atomic<unsigned> born{0};
  char name[16];
  // Unsigned, so that no sign is left by the remainder: with one the name would not fit.
  std::snprintf(name, sizeof name, "composable-s%u", born.fetch_add(1, std::memory_order_relaxed) % 1000);
  pthread_setname_np(pthread_self(), name);
  if (Arena::hooks.started != nullptr) Arena::hooks.started();
}

// True if it was summoned, false if nobody did for so long.
bool Spares::await_call(Lock& held, Clock::duration patience) {
  Seat seat;
  idle_.push_back(&seat);
  const auto deadline = Clock::now() + patience;
  while (!seat.called && seat.wakes.wait_until(held, deadline) != std::cv_status::timeout) {
  }
  if (!seat.called) std::erase(idle_, &seat);
  return seat.called;
}

void Spares::run() {
  begin();
  for (;;) {
    Lifecycle::serve(arena_);
    Lock held = arena_.lock();
    if (await_call(held, kKeepIdle)) continue;
    --alive_;
    break;
  }
  if (Arena::hooks.ending != nullptr) Arena::hooks.ending();
}

void Spares::adopt() {
  begin();
  Lock held = arena_.lock();
  for (;;) {
    // Until it sits there nobody could summon it.
    Seat seat;
    idle_.push_back(&seat);
    arena_.settle(held);
    while (!seat.called) seat.wakes.wait(held);
    held.unlock();
    Lifecycle::serve(arena_);
    arena_.relock(held);
  }
}

}  // namespace composable
