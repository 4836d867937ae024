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

/// Between two looks at a value that another core is about to change.
inline void relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Ticks in a microsecond, measured once, a millisecond after the start at the earliest; a fair guess until then.
double ticks_per_us() noexcept;
/// The same, measured since the start of the process: the longer ago that is, the more exact.
double exact_ticks_per_us() noexcept;

}  // namespace composable
