// What the tests of the Numba ABI share: what every kernel looks at, and a thread state as before the test.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "../numba_abi.h"
#include "at_rest.h"

namespace composable::testing {

using namespace composable::numba;

/// What a kernel may look at besides its arguments; one call at a time uses it.
struct Seen {
  Crowd crowd;
  std::array<std::atomic<bool>, 256> ids{};
  std::atomic<int> calls{0};
  std::atomic<std::size_t> longest{0};
};

template <typename T>
inline char* bytes(T* data) {
  return reinterpret_cast<char*>(data);
}

inline std::size_t step(std::ptrdiff_t bytes) { return static_cast<std::size_t>(bytes); }

/// Every kernel begins and ends like this: id and mask are right, and nobody else has the id now.
class InKernel {
 public:
  InKernel(Seen& seen, std::size_t items) : seen_(seen), id_(composable_get_thread_id()) {
    CHECK(0 <= id_ && id_ < composable_get_num_threads());
    CHECK(composable_get_parallel_chunksize() == 0);
    CHECK(!seen_.ids[static_cast<std::size_t>(id_)].exchange(true));
    seen_.crowd.in();
    ++seen_.calls;
    for (std::size_t most = seen_.longest; items > most && !seen_.longest.compare_exchange_weak(most, items);) {
    }
  }
  ~InKernel() {
    seen_.crowd.out();
    seen_.ids[static_cast<std::size_t>(id_)] = false;
  }
  std::size_t id() const { return static_cast<std::size_t>(id_); }

 private:
  Seen& seen_;
  const std::intptr_t id_;
};

/// Keeps the calling thread's mask and chunk size for the other tests.
struct Clean : AtRest {
  Clean() { this_thread().kernel = {}; }
  ~Clean() {
    this_thread().kernel = {};
    set_deterministic(false);
  }
};

}  // namespace composable::testing
