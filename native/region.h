// A region: one fork-join loop over `items`, run by the caller and up to `width - 1` runners.
//
// The caller starts at once, alone, and measures its own first blocks. Only when the rest is worth a wake-up does it
// offer the region on the board. Where an earlier region of the same body was large, or there was none, it is offered
// before the first block: that may be half of the work. Workers that hold a permit join as runners, take blocks of
// what is left (blocks.h) and leave. A runner that comes late finds no block and leaves again, so the caller never waits for a
// sleeping thread, and one that comes in the middle (permits became free) widens the region.
//
// The caller waits for running blocks only, runs nothing else meanwhile, and gives its permit to others if that takes
// long. So a wait never runs a stranger, by construction.
//
// A short region is offered in the lane (lane.h) where that is free and enough workers linger. Should it last after all, it
// moves to the board.
//
// The region lives on the caller's stack; nothing is allocated. Runners touch it only between joining and leaving,
// both under the arena's lock or by the lane's word.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "arena.h"
#include "blocks.h"

namespace composable {

class Region final : public Source, private Lane::User {
 public:
  /// Runs items [begin, end) as runner `runner`, 0 <= runner < width; no two concurrent calls of a region have the
  /// same runner. Returns false to cancel what has not started.
  using Body = bool (*)(void* context, std::size_t begin, std::size_t end, int runner, ThreadState& self);

  struct Shape {
    std::size_t items;
    int width;                   // at most this many threads; >= 1
    std::size_t first = 1;       // items in the first measured block
    std::size_t fixed = 0;       // every block has this many items; 0: the region decides
    std::uintptr_t body_id = 0;  // regions of the same number cost about the same per unit; 0: nothing is known
    double units = 1;            // what an item costs is counted in, such as iterations of a loop: so many each
  };

  /// Runs the whole loop; every item ran once at return, with a full fence. False if it was cancelled.
  static bool run(Arena& arena, ThreadState& self, const Shape& shape, Body body, void* context);

  /// Asked by callers between blocks, seldom enough not to be felt: whether to cancel the region, as after Ctrl-C. No lock held.
  static bool (*interrupted)(const ThreadState& caller) noexcept;

  /// What a unit of `body_id` costs, in us; below 0 if nothing is known.
  static double learned_us(std::uintptr_t body_id) noexcept;

  /// Whether a region that is expected to take `us` is offered before its first block.
  static bool is_large(const Arena& arena, double us) noexcept;

  int wanted() const noexcept override;
  void work(Lock& lock, ThreadState& self) noexcept override;
  bool run_part(int runner, ThreadState& self) noexcept override;
  void leave_part(Lock& held, int runner, ThreadState& self) noexcept override;
  Kind kind() const noexcept override { return Kind::region; }
  int depth() const noexcept override { return 0; }

 private:
  Region(Arena& arena, ThreadState& caller, bool outermost, const Shape& shape, Body body, void* context);
  void call();
  std::size_t measure();
  bool shared_at_once() noexcept;
  void record(std::uint32_t session) const noexcept;
  void learn(double spent_us, std::size_t items) const noexcept;
  void share(std::size_t done, std::size_t largest);
  void offer();
  bool is_done_with_lane() const noexcept;
  void leave_lane(Lock& held) noexcept;
  void offer_on_board();
  void spin_for_runners() const noexcept;
  void await_runners(Lock& held);
  static bool run_limited(Arena& arena, ThreadState& self, const Shape& shape, Body body, void* context);
  bool claim(int runner, std::size_t& begin, std::size_t& end) noexcept;
  std::size_t smallest_block() const noexcept;
  void run_here(std::size_t begin, std::size_t end);
  void expect_interrupt(std::uint64_t now) noexcept;
  void look_for_interrupt(std::uint64_t now);
  bool is_cancelled() const noexcept { return cancelled_.load(std::memory_order_relaxed); }
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  int take_runner(Lock&) noexcept;

  static constexpr int kMostRunners = 256;

  Arena& arena_;
  ThreadState& caller_;
  const int limit_;       // ThreadState::limit in its blocks
  const bool outermost_;  // the caller computes for nothing else: it needs no permit once it waits
  const Shape shape_;
  const Body body_;
  void* const context_;

  Blocks blocks_;  // empty until the caller knows whether to share
  std::atomic<bool> cancelled_{false};
  int blocks_per_look_ = 1;  // of the caller, for look_for_interrupt()
  int blocks_unlooked_ = 0;
  std::size_t done_here_ = 0;     // items the caller ran while sharing
  std::uint64_t done_ticks_ = 0;  // when it had run the last of them
  std::uint64_t began_ = 0;       // ticks, for a recording; 0: not known
  std::uint64_t ended_ = 0;       // the same, of a region that its caller ran alone
  int sharers_ = 1;
  double us_per_item_ = -1;  // below 0: not known
  int load_ = -1;            // what it adds to the arena's load; below 0: not offered yet
  bool in_lane_ = false;     // offered in the arena's lane

  // Under the lock (active_ is read without it by the spinning caller); of the lane's runners once they left it:
  std::atomic<int> active_{0};                    // runners inside, the caller not counted
  std::uint64_t taken_[kMostRunners / 64] = {1};  // runner numbers in use; 0 is the caller's
  bool closing_ = false;
  Waiter* caller_waits_ = nullptr;
};

}  // namespace composable
