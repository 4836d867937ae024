// The lane: one short region at a time is offered straight to the workers that linger, without the board and its lock.
//
// A region of some microseconds cannot afford that every runner takes the arena's lock to join and once more to leave. So
// its caller, which holds the lock anyway to have its load counted, puts it here where all the workers it could use are
// lingering. They join and leave by one atomic operation each.
//
// State, in one word: a number of the offer, whose places are free, and who is inside; a place is a runner number. The
// user's address is valid for the number of the offer it was stored for: read before, it holds if the word has not
// changed. An offer is withdrawn by a new number, after which runners inside cannot leave by the word any more and do so
// under the lock.
#pragma once

#include <atomic>
#include <bit>
#include <cstdint>
#include <mutex>

#include "thread_state.h"

namespace composable {

class Lane {
 public:
  static constexpr int kPlaces = 16;

  /// What is offered. Both are called by a lingering worker that joined.
  class User {
   public:
    /// Runs a share as `runner`, without the lock. True if it left before all was claimed.
    virtual bool run_part(int runner, ThreadState& self) noexcept = 0;
    /// Afterwards, if the offer was withdrawn meanwhile, under the lock.
    virtual void leave_part(std::unique_lock<std::mutex>& held, int runner, ThreadState& self) noexcept = 0;

   protected:
    ~User() = default;
  };

  struct Place {
    User* user = nullptr;
    int runner = 0;
    std::uint64_t offer = 0;
    explicit operator bool() const noexcept { return user != nullptr; }
  };

  bool in_use() const noexcept { return user_.load(std::memory_order_relaxed) != nullptr; }
  bool has_place() const noexcept { return (word_.load(std::memory_order_relaxed) & kAllFree) != 0; }
  /// Places that nobody has taken yet.
  int places() const noexcept { return std::popcount(word_.load(std::memory_order_acquire) & kAllFree); }

  /// `count` runners, with the numbers 1 to `count`, may join. The lane must not be in use. Lock held.
  void offer(User& user, int count) noexcept {
    user_.store(&user, std::memory_order_release);
    const std::uint64_t next = number(word_.load(std::memory_order_relaxed)) + kOne;
    word_.store(next | ((std::uint64_t{1} << count) - 1) << kFree, std::memory_order_release);
  }
  /// Nobody joins from now on.
  void shut() noexcept {
    if (has_place()) word_.fetch_and(~kAllFree, std::memory_order_acq_rel);
  }
  /// Whether a runner of the offer that is not withdrawn is inside.
  bool is_used() const noexcept { return (word_.load(std::memory_order_acquire) & kAllInside) != 0; }
  /// Ends the offer. Returns who is inside, bit n for the runner number n; each of them leaves under the lock. Lock held.
  std::uint64_t withdraw() noexcept {
    const std::uint64_t word = word_.load(std::memory_order_acquire);
    std::uint64_t inside = 0;
    if ((word & (kAllFree | kAllInside)) != 0) {
      const std::uint64_t last = word_.exchange(number(word) + kOne, std::memory_order_acq_rel);
      inside = (last & kAllInside) >> kInside << 1;
    }
    user_.store(nullptr, std::memory_order_release);
    return inside;
  }

  /// A worker takes the lowest free place, if there is one.
  Place join() noexcept {
    std::uint64_t word = word_.load(std::memory_order_acquire);
    while ((word & kAllFree) != 0) {
      User* user = user_.load(std::memory_order_acquire);
      const int place = std::countr_zero((word & kAllFree) >> kFree);
      const std::uint64_t joined =
          word ^ (std::uint64_t{1} << (kFree + place)) ^ (std::uint64_t{1} << (kInside + place));
      if (word_.compare_exchange_weak(word, joined, std::memory_order_acq_rel, std::memory_order_acquire)) {
        return {user, place + 1, number(word)};
      }
    }
    return {};
  }
  /// It leaves; `free_again`: another may take its place. False if it must leave under the lock.
  bool leave(const Place& place, bool free_again) noexcept {
    const int bit = place.runner - 1;
    std::uint64_t word = word_.load(std::memory_order_relaxed);
    while (number(word) == place.offer) {
      const std::uint64_t freed = free_again ? std::uint64_t{1} << (kFree + bit) : 0;
      const std::uint64_t left = (word & ~(std::uint64_t{1} << (kInside + bit))) | freed;
      if (word_.compare_exchange_weak(word, left, std::memory_order_acq_rel, std::memory_order_relaxed)) return true;
    }
    return false;
  }
  bool is_offered(const Place& place) const noexcept {
    return number(word_.load(std::memory_order_relaxed)) == place.offer;
  }

 private:
  static constexpr int kFree = 0, kInside = kPlaces, kNumber = 2 * kPlaces;
  static constexpr std::uint64_t kAllFree = (std::uint64_t{1} << kPlaces) - 1;
  static constexpr std::uint64_t kAllInside = kAllFree << kInside;
  static constexpr std::uint64_t kOne = std::uint64_t{1} << kNumber;
  static std::uint64_t number(std::uint64_t word) noexcept { return word >> kNumber << kNumber; }

  std::atomic<std::uint64_t> word_{0};
  std::atomic<User*> user_{nullptr};
};

}  // namespace composable
