// What the tests of regions share: a loop that watches how it is run.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <vector>

#include "../region.h"
#include "at_rest.h"

namespace composable::testing {

inline constexpr int kMostRunners = 256;

/// A region's body with what it must hold for each block: its runner number is its own, its items are new.
class Loop {
 public:
  using Each = std::function<bool(std::size_t begin, std::size_t end, int runner)>;

  Loop(const Region::Shape& shape, Each each = {}) : shape_(shape), each_(std::move(each)), seen_(shape.items, 0) {}

  bool run() { return Region::run(Arena::instance(), this_thread(), shape_, body, this); }
  /// Runs and looks that every item was done.
  void check() {
    run();
    std::size_t once = 0;
    for (const unsigned char count : seen_) once += count == 1;
    CHECK(once == shape_.items);
  }
  std::size_t done() const {
    std::size_t count = 0;
    for (const unsigned char one : seen_) count += one;
    return count;
  }
  const Crowd& crowd() const { return crowd_; }

 private:
  static bool body(void* context, std::size_t begin, std::size_t end, int runner, ThreadState& self) {
    Loop& loop = *static_cast<Loop*>(context);
    CHECK(&self == &this_thread());
    CHECK(begin < end && end <= loop.shape_.items);
    CHECK(loop.shape_.fixed == 0 || end - begin == std::min(loop.shape_.fixed, loop.shape_.items - begin));
    if (!CHECK(0 <= runner && runner < std::max(1, std::min(loop.shape_.width, kMostRunners)))) return false;
    CHECK(!loop.busy_[runner].exchange(true));
    loop.crowd_.in();
    const bool more = !loop.each_ || loop.each_(begin, end, runner);
    for (std::size_t item = begin; item < end; ++item) ++loop.seen_[item];
    loop.crowd_.out();
    loop.busy_[runner] = false;
    return more;
  }

  const Region::Shape shape_;
  const Each each_;
  std::vector<unsigned char> seen_;
  std::array<std::atomic<bool>, kMostRunners> busy_{};
  Crowd crowd_;
};

inline auto spinning(std::chrono::nanoseconds time) {
  return [time](std::size_t, std::size_t, int) {
    spin(time);
    return true;
  };
}

/// A body in which threads wait until `enough` of them are there at once, or were. The first block, in which the caller
/// is alone, waits for nobody.
inline auto meeting(Crowd& crowd, int enough) {
  return [&crowd, enough](std::size_t begin, std::size_t, int) {
    spin(10us);  // or it would not be worth sharing
    if (begin == 0) return true;
    crowd.in();
    CHECK(eventually([&] { return crowd.most() >= enough; }));
    crowd.out();
    return true;
  };
}

}  // namespace composable::testing
