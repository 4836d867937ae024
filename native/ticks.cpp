#include "ticks.h"

#include <atomic>

namespace composable {
namespace {

struct Epoch {
  std::uint64_t ticks = composable::ticks();
  std::chrono::steady_clock::time_point time = std::chrono::steady_clock::now();
};

#if defined(__x86_64__)
constexpr double kGuess = 2500.0;
#else
constexpr double kGuess = 1000.0;
#endif

const Epoch epoch;  // not made on first use: a fork in between would leave its guard locked in the child
std::atomic<double> known{0.0};

}  // namespace

double ticks_per_us() noexcept {
  if (const double value = known.load(std::memory_order_relaxed); value > 0) return value;
  const double passed =
      std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - epoch.time).count();
  if (passed < 1000.0) return kGuess;
  const double value = static_cast<double>(ticks() - epoch.ticks) / passed;
  known.store(value, std::memory_order_relaxed);
  return value;
}

}  // namespace composable
