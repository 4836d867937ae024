#include "array.h"

#include <sys/mman.h>

#include <array>
#include <atomic>
#include <bit>

namespace composable::kept_memory {
namespace {

// Powers of two, for the lengths of what is needed differ from graph to graph; pages that are never touched cost
// nothing. No lock, so a fork finds nothing half done.
constexpr std::size_t kClasses = 8;  // up to 8 MiB
constexpr std::size_t kPlaces = 16;  // of each
constexpr std::size_t kMost = std::size_t{32} << 20;

std::array<std::array<std::atomic<void*>, kPlaces>, kClasses> g_places{};
std::atomic<std::size_t> g_kept{0};

std::size_t class_of(std::size_t size) noexcept {
  return static_cast<std::size_t>(std::countr_zero(size) - std::countr_zero(kSmallest));
}

}  // namespace

void* take(std::size_t bytes) {
  if (bytes > std::size_t{1} << 62) throw std::bad_alloc();
  const std::size_t size = std::bit_ceil(bytes);
  if (class_of(size) < kClasses) {
    for (std::atomic<void*>& place : g_places[class_of(size)]) {
      if (place.load(std::memory_order_relaxed) == nullptr) continue;
      if (void* memory = place.exchange(nullptr, std::memory_order_acquire)) {
        g_kept.fetch_sub(size, std::memory_order_relaxed);
        return memory;
      }
    }
  }
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return memory;
}

void give(void* memory, std::size_t bytes) noexcept {
  const std::size_t size = std::bit_ceil(bytes);
  if (class_of(size) < kClasses) {
    if (g_kept.fetch_add(size, std::memory_order_relaxed) + size <= kMost) {
      madvise(memory, size, MADV_FREE);
      for (std::atomic<void*>& place : g_places[class_of(size)]) {
        void* none = nullptr;
        if (place.compare_exchange_strong(none, memory, std::memory_order_release, std::memory_order_relaxed)) return;
      }
    }
    g_kept.fetch_sub(size, std::memory_order_relaxed);
  }
  munmap(memory, size);
}

std::size_t kept() noexcept { return g_kept.load(std::memory_order_relaxed); }

}  // namespace composable::kept_memory
