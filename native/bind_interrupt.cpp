#include "bind_interrupt.h"

#include <pybind11/pybind11.h>

#include <csignal>

#include <atomic>

#include <dlfcn.h>

namespace composable {
namespace {

using Handler = void (*)(int);

std::atomic<bool> came{false};
std::atomic<Handler> pythons{nullptr};

void note(int signal) {
  came.store(true, std::memory_order_relaxed);
  if (const Handler handler = pythons.load(std::memory_order_acquire)) handler(signal);
}

// Its handler has no name outside; it is in the interpreter's library or program.
bool is_pythons(Handler handler) noexcept {
  if (const Handler known = pythons.load(std::memory_order_acquire)) return handler == known;
  Dl_info of_handler, of_python;
  return handler != SIG_DFL && handler != SIG_IGN && dladdr(reinterpret_cast<void*>(handler), &of_handler) != 0 &&
         dladdr(reinterpret_cast<void*>(&PyErr_CheckSignals), &of_python) != 0 &&
         of_handler.dli_fbase == of_python.dli_fbase;
}

}  // namespace

void watch_interrupts() noexcept {
  struct sigaction now;
  if (sigaction(SIGINT, nullptr, &now) != 0 || (now.sa_flags & SA_SIGINFO) != 0 || !is_pythons(now.sa_handler)) return;
  pythons.store(now.sa_handler, std::memory_order_release);
  now.sa_handler = note;
  sigaction(SIGINT, &now, nullptr);
}

bool take_interrupt() noexcept { return came.exchange(false, std::memory_order_relaxed); }

}  // namespace composable
