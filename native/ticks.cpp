#include "ticks.h"

#include <atomic>
#include <limits>

namespace composable {
namespace {

// Both clocks at one moment: of a few readings the one that nothing came between.
struct Moment {
  std::uint64_t ticks = 0;
  std::chrono::steady_clock::time_point time;

  static Moment now() noexcept {
    Moment best;
    std::uint64_t shortest = std::numeric_limits<std::uint64_t>::max();
    for (int i = 0; i < 5; ++i) {
      const std::uint64_t before = composable::ticks();
      const auto time = std::chrono::steady_clock::now();
      const std::uint64_t took = composable::ticks() - before;
      if (took >= shortest) continue;
      shortest = took;
      best = {before + took / 2, time};
    }
    return best;
  }
};

#if defined(__x86_64__)
constexpr double kGuess = 2500.0;
#else
constexpr double kGuess = 1000.0;
#endif

const Moment epoch = Moment::now();  // not on first use: a fork in between would leave its guard locked in the child
std::atomic<double> known{0.0};

// 0 until enough time has passed.
double measured() noexcept {
  const Moment now = Moment::now();
  const double passed = std::chrono::duration<double, std::micro>(now.time - epoch.time).count();
  return passed < 1000.0 ? 0 : static_cast<double>(now.ticks - epoch.ticks) / passed;
}

}  // namespace

double ticks_per_us() noexcept {
  double value = known.load(std::memory_order_relaxed);
  if (value > 0) return value;
  value = measured();
  if (value == 0) return kGuess;
  known.store(value, std::memory_order_relaxed);
  return value;
}

double exact_ticks_per_us() noexcept {
  const double value = measured();
  return value > 0 ? value : kGuess;
}

}  // namespace composable
