// What nobody has claimed of a loop: one part per thread, from which it and, once their own are done, others take blocks.
//
// A loop over the same data that runs again and again finds each thread in its old part, and the data in its core's
// cache. Blocks are guided: half of what is left of the thread's own part, a quarter of another's, so that the end is
// levelled by small ones.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>

#include "schedule.h"

namespace composable {

class Blocks {
 public:
  Blocks() noexcept {}  // leaves the parts as they are: most regions are too small to have any

  /// Items [begin, end) in `parts` parts, or as many as there may be, in blocks of `smallest` to `largest` items; `fixed` >
  /// 0: of exactly so many, but for the last. By one thread, before others claim.
  void divide(std::size_t begin, std::size_t end, int parts, std::size_t smallest, std::size_t largest,
              std::size_t fixed) noexcept {
    parts_ = std::min(parts, kMostParts);
    stride_ = kMostParts / static_cast<std::size_t>(parts_) >= kLine ? kLine : 1;
    smallest_ = fixed > 0 ? fixed : smallest;
    largest_ = fixed > 0 ? fixed : std::max(smallest, largest);
    const std::size_t unit = fixed > 0 ? fixed : 1;
    const std::size_t units = (end - begin) / unit;
    const auto count = static_cast<std::size_t>(parts_);
    for (std::size_t i = 0; i < count; ++i) {
      Part& part = parts_of_[i * stride_];
      part.next = begin + unit * cut(units, i, count);
      part.end = i + 1 < count ? begin + unit * cut(units, i + 1, count) : end;
    }
  }

  /// The next block for the thread whose part is `own` (modulo their number). False if there is none left.
  bool claim(int own, std::size_t& begin, std::size_t& end) noexcept {
    for (int i = 0; i < parts_; ++i) {
      if (take(parts_of_[static_cast<std::size_t>((own + i) % parts_) * stride_], i == 0 ? 2 : 4, begin, end))
        return true;
    }
    return false;
  }

  bool any_left() const noexcept {
    for (int i = 0; i < parts_; ++i) {
      const Part& part = parts_of_[static_cast<std::size_t>(i) * stride_];
      if (next_of(part).load(std::memory_order_relaxed) < part.end) return true;
    }
    return false;
  }

  /// Of the first block of a part, about.
  std::size_t longest() const noexcept {
    return parts_ == 0 ? 0 : std::clamp((parts_of_[0].end - parts_of_[0].next) / 2, smallest_, largest_);
  }

 private:
  struct Part {
    std::size_t next, end;  // the first is atomic once others claim
  };
  static constexpr int kMostParts = 64;                    // regions nest deeply, on one stack
  static constexpr std::size_t kLine = 64 / sizeof(Part);  // so many apart they share no line of a cache

  static std::atomic_ref<std::size_t> next_of(const Part& part) noexcept {
    return std::atomic_ref<std::size_t>(const_cast<Part&>(part).next);
  }

  bool take(Part& part, std::size_t fraction, std::size_t& begin, std::size_t& end) noexcept {
    const std::atomic_ref<std::size_t> next = next_of(part);
    begin = next.load(std::memory_order_relaxed);
    while (begin < part.end) {
      const std::size_t left = part.end - begin;
      const std::size_t size = std::clamp(left / fraction, smallest_, largest_);
      end = left > size ? begin + size : part.end;
      if (next.compare_exchange_weak(begin, end, std::memory_order_relaxed)) return true;
    }
    return false;
  }

  int parts_ = 0;
  std::size_t stride_;
  std::size_t smallest_, largest_;
  Part parts_of_[kMostParts];
};

}  // namespace composable
