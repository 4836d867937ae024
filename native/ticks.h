// A clock cheap enough to read between blocks of a region: about ten nanoseconds.
#pragma once

#include <chrono>
#include <cstdint>

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace composable {

#if defined(__x86_64__)
inline std::uint64_t ticks() noexcept { return __rdtsc(); }
#else
inline std::uint64_t ticks() noexcept {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}
#endif

/// Ticks in a microsecond, from the time since the first call; a fair guess until some has passed.
double ticks_per_us() noexcept;

}  // namespace composable
