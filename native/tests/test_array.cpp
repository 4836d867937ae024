// Memory that is kept for the next graph.
#include "../array.h"

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <thread>

#include "check.h"

using composable::Array;
namespace kept_memory = composable::kept_memory;

namespace {
constexpr std::size_t kMiB = std::size_t{1} << 20;
}

TEST(large_memory_that_was_given_back_is_taken_again) {
  const std::size_t before = kept_memory::kept();
  const int* first;
  {
    const Array<int> array(100'000);
    first = array.data();
  }
  CHECK(kept_memory::kept() == before + kMiB / 2);
  const Array<int> again(90'000, 7);
  CHECK(again.data() == first);
  CHECK(kept_memory::kept() == before);
  CHECK(std::accumulate(again.begin(), again.end(), 0) == 630'000);
}

TEST(small_memory_is_not_kept) {
  const std::size_t before = kept_memory::kept();
  {
    const Array<char> array(kept_memory::kSmallest - 1);
  }
  CHECK(kept_memory::kept() == before);
  {
    const Array<char> array(kept_memory::kSmallest);
  }
  CHECK(kept_memory::kept() == before + kept_memory::kSmallest);
}

TEST(there_is_an_end_to_what_is_kept) {
  {
    Array<Array<char>> many;
    for (int i = 0; i < 12; ++i) many.emplace_back(8 * kMiB);
  }
  CHECK(kept_memory::kept() <= 32 * kMiB);
  CHECK(kept_memory::kept() >= 16 * kMiB);
  const std::size_t before = kept_memory::kept();
  {
    const Array<char> array(100 * kMiB);
  }
  CHECK(kept_memory::kept() == before);
}

TEST(what_no_system_has_is_refused) {
  for (const std::size_t count : {std::size_t{1} << 50, Array<long>().max_size(), Array<long>().max_size() + 1}) {
    bool refused = false;
    try {
      Array<long> array;
      array.reserve(count);
    } catch (const std::bad_alloc&) {
      refused = true;
    } catch (const std::length_error&) {
      refused = true;
    }
    CHECK(refused);
  }
}

TEST(threads_never_share_what_they_take) {
  std::atomic<int> wrong{0};
  Array<std::thread> threads;
  for (unsigned char mark = 1; mark <= 4; ++mark) {
    threads.emplace_back([&wrong, mark] {
      for (int round = 0; round < 2'000; ++round) {
        Array<unsigned char> array(kept_memory::kSmallest << round % 3, mark);
        std::this_thread::yield();
        for (std::size_t at = 0; at < array.size(); at += 512) {
          if (array[at] != mark) ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
  CHECK(kept_memory::kept() <= 32 * kMiB);
}

int main() { return composable::testing::run_all(); }
