// Vectors of which a graph needs dozens: what they hold in memory, where it is large, is kept for the next graph.
//
// malloc gives such memory back to the system, which hands out empty pages again when they are touched first: some 3,000
// of them for a graph of 100,000 nodes, a twentieth of all the time that its tasks take beyond their own. The pages that
// are kept are marked as the system's to take when memory gets scarce.
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <vector>

namespace composable {

namespace kept_memory {

/// From here on in bytes; smaller ones stay with malloc.
inline constexpr std::size_t kSmallest = std::size_t{1} << 16;

/// At least `bytes`, more than half of kSmallest, aligned to a page. Throws std::bad_alloc.
void* take(std::size_t bytes);
/// `bytes` as they were asked for.
void give(void* memory, std::size_t bytes) noexcept;
/// Bytes kept now, at most some tens of MiB.
std::size_t kept() noexcept;

}  // namespace kept_memory

template <typename T>
struct KeepingAllocator {
  using value_type = T;

  KeepingAllocator() = default;
  template <typename Other>
  KeepingAllocator(const KeepingAllocator<Other>&) noexcept {}

  T* allocate(std::size_t count) {
    if (count < kept_memory::kSmallest / sizeof(T)) return static_cast<T*>(::operator new(count * sizeof(T)));
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(kept_memory::take(count * sizeof(T)));
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    if (count < kept_memory::kSmallest / sizeof(T)) {
      ::operator delete(memory);
    } else {
      kept_memory::give(memory, count * sizeof(T));
    }
  }
  bool operator==(const KeepingAllocator&) const noexcept { return true; }
};

template <typename T>
using Array = std::vector<T, KeepingAllocator<T>>;

}  // namespace composable
