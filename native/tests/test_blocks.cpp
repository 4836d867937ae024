// What nobody has claimed of a loop: every item in one block, parts, sizes, the ends of the range, many claiming at once.
#include "../blocks.h"

#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "check.h"

using namespace composable;
using namespace composable::testing;

namespace {

constexpr std::size_t kMax = std::numeric_limits<std::size_t>::max();

struct Block {
  std::size_t begin, end;
};

std::vector<Block> claim_all(Blocks& blocks, int own) {
  std::vector<Block> claimed;
  for (Block block; blocks.claim(own, block.begin, block.end);) claimed.push_back(block);
  return claimed;
}

}  // namespace

TEST(every_item_is_in_one_block_whoever_claims) {
  std::mt19937 random(3);
  const auto blocks = std::make_unique<Blocks>();
  for (int round = 0; round < 3000; ++round) {
    const std::size_t begin = random() % 50, items = random() % 400;
    const int parts = 1 + static_cast<int>(random() % (round % 2 == 0 ? 8 : 256));
    const std::size_t smallest = 1 + random() % 9, largest = random() % 60,
                      fixed = random() % 3 == 0 ? 1 + random() % 20 : 0;
    blocks->divide(begin, begin + items, parts, smallest, largest, fixed);
    CHECK(blocks->any_left() == (items > 0));
    std::vector<int> seen(items, 0);
    for (Block block; blocks->claim(static_cast<int>(random() % 300), block.begin, block.end);) {
      if (!CHECK(begin <= block.begin && block.begin < block.end && block.end <= begin + items)) break;
      CHECK(block.end - block.begin <= std::max({smallest, largest, fixed}));
      if (fixed > 0) {
        CHECK((block.begin - begin) % fixed == 0);
        CHECK(block.end - block.begin == std::min(fixed, begin + items - block.begin));
      }
      for (std::size_t item = block.begin; item < block.end; ++item) ++seen[item - begin];
    }
    bool once = true;
    for (const int count : seen) once = once && count == 1;
    CHECK(once);
    CHECK(!blocks->any_left());
  }
}

TEST(nothing_is_left_of_what_was_never_divided) {
  Blocks blocks;
  std::size_t begin, end;
  CHECK(!blocks.any_left() && !blocks.claim(0, begin, end) && blocks.longest() == 0);
}

TEST(a_thread_begins_with_the_same_part_every_time_and_goes_on_with_the_next_ones) {
  for (int time = 0; time < 2; ++time) {
    for (int own = 0; own < 4; ++own) {
      Blocks blocks;
      blocks.divide(100, 500, 4, 1, 1000, 0);
      const std::vector<Block> claimed = claim_all(blocks, own);
      const std::size_t first = 100 + 100 * static_cast<std::size_t>(own);
      CHECK(claimed.front().begin == first && claimed.front().end == first + 50);
      CHECK(claimed[1].begin == first + 50 && claimed[1].end == first + 75);
      std::size_t done = 0, of_own = 0;
      for (const Block& block : claimed) {
        done += block.end - block.begin;
        if (of_own == 0 && done == 100) of_own = done;
        if (done <= 100) CHECK(first <= block.begin && block.end <= first + 100);
      }
      CHECK(of_own == 100 && done == 400);
    }
  }
}

TEST(of_anothers_part_a_thread_takes_a_quarter_of_what_is_left) {
  Blocks blocks;
  blocks.divide(0, 200, 2, 1, 1000, 0);
  std::size_t begin, end;
  for (std::size_t left = 100; left > 0; left -= end - begin) CHECK(blocks.claim(0, begin, end) && end <= 100);
  CHECK(blocks.claim(0, begin, end) && begin == 100 && end == 125);
  CHECK(blocks.claim(1, begin, end) && begin == 125 && end == 162);
}

TEST(the_longest_loops_do_not_overflow) {
  std::size_t begin, end;
  for (const int parts : {1, 2, 7, 256}) {
    for (const std::size_t fixed : {std::size_t{0}, std::size_t{1}, kMax / 2, kMax}) {
      Blocks blocks;
      blocks.divide(0, kMax, parts, 1, kMax, fixed);
      CHECK(blocks.any_left());
      const bool claimed = blocks.claim(parts - 1, begin, end);
      CHECK(claimed && begin < end);
    }
    Blocks blocks;
    blocks.divide(kMax - 10, kMax, parts, 1, kMax, 0);
    std::size_t items = 0;
    for (const Block& block : claim_all(blocks, 0)) items += block.end - block.begin;
    CHECK(items == 10);
  }
}

TEST(many_threads_claim_at_once_and_no_item_is_lost_or_run_twice) {
  constexpr int kThreads = 4;
  constexpr std::size_t kItems = 20'000;
  for (int round = 0; round < 20; ++round) {
    Blocks blocks;
    blocks.divide(0, kItems, 1 + round % (kThreads + 1), 1, 50, round % 3 == 0 ? 3 : 0);
    std::vector<std::vector<Block>> claimed(kThreads);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] { claimed[static_cast<std::size_t>(i)] = claim_all(blocks, i); });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<int> seen(kItems, 0);
    for (const auto& mine : claimed) {
      for (const Block& block : mine) {
        for (std::size_t item = block.begin; item < block.end; ++item) ++seen[item];
      }
    }
    bool once = true;
    for (const int count : seen) once = once && count == 1;
    CHECK(once);
  }
}

int main() { return run_all(); }
