#include "schedule.h"

#include <algorithm>
#include <limits>

namespace composable {
namespace {

constexpr std::size_t kMostDims = 64;
constexpr std::uint64_t kGrainsEach = 16;  // with fewer in a division, whole grains would be felt as imbalance

std::uint64_t length(std::intptr_t start, std::intptr_t end) noexcept {
  return end < start ? 0 : static_cast<std::uint64_t>(end) - static_cast<std::uint64_t>(start) + 1;
}

void fill_empty(std::size_t dims, std::size_t divisions, std::intptr_t* row) noexcept {
  for (std::size_t i = 0; i < divisions; ++i, row += 2 * dims) {
    std::fill_n(row, dims, 1);
    std::fill_n(row + dims, dims, 0);
  }
}

// In whole grains, but for the last one.
void fill_line(std::intptr_t start, std::uint64_t size, std::size_t divisions, std::uint64_t grain,
               std::intptr_t* row) noexcept {
  const std::uint64_t grains = size / grain;
  std::uint64_t past = 0;
  for (std::size_t i = 0; i < divisions; ++i, row += 2) {
    const std::uint64_t first = past;
    past = i + 1 == divisions ? size : grain * cut(grains, i + 1, divisions);
    row[0] = first < past ? static_cast<std::intptr_t>(static_cast<std::uint64_t>(start) + first) : 1;
    row[1] = first < past ? static_cast<std::intptr_t>(static_cast<std::uint64_t>(start) + past - 1) : 0;
  }
}

// Halves the divisions and, in the same proportion, the first dimension that is long enough (outer dimensions first
// keep memory access contiguous), until one division is left for one box.
void fill_box(std::size_t dims, std::intptr_t* starts, std::intptr_t* ends, std::size_t divisions,
              std::intptr_t* row) noexcept {
  if (divisions == 1) {
    std::copy_n(starts, dims, row);
    std::copy_n(ends, dims, row + dims);
    return;
  }
  std::size_t longest = 0;
  std::size_t along = dims;
  for (std::size_t d = 0; d < dims; ++d) {
    const std::uint64_t size = length(starts[d], ends[d]);
    if (size >= divisions) {
      along = d;
      break;
    }
    if (size > length(starts[longest], ends[longest])) longest = d;
  }
  if (along == dims) along = longest;
  const std::uint64_t size = length(starts[along], ends[along]);
  if (size <= 1) {  // a single iteration: the other divisions stay empty
    std::copy_n(starts, dims, row);
    std::copy_n(ends, dims, row + dims);
    fill_empty(dims, divisions - 1, row + 2 * dims);
    return;
  }
  const std::size_t left = divisions / 2;
  // size * left / divisions without overflow, at least one iteration on either side.
  const std::uint64_t share = size / divisions * left + size % divisions * left / divisions;
  const std::uint64_t first = std::clamp<std::uint64_t>(share, 1, size - 1);
  const std::intptr_t start = starts[along];
  const std::intptr_t end = ends[along];
  const auto middle = static_cast<std::intptr_t>(static_cast<std::uint64_t>(start) + first);
  ends[along] = middle - 1;
  fill_box(dims, starts, ends, left, row);
  ends[along] = end;
  starts[along] = middle;
  fill_box(dims, starts, ends, divisions - left, row + 2 * dims * left);
  starts[along] = start;
}

}  // namespace

std::uint64_t space_size(std::size_t dims, const std::intptr_t* starts, const std::intptr_t* ends) noexcept {
  if (dims == 0) return 0;
  std::uint64_t total = 1;
  bool overflow = false;
  for (std::size_t d = 0; d < dims; ++d) {
    const std::uint64_t size = length(starts[d], ends[d]);
    if (size == 0) return 0;
    overflow = overflow || __builtin_mul_overflow(total, size, &total);
  }
  return overflow ? std::numeric_limits<std::uint64_t>::max() : total;
}

std::size_t divisions_for_chunk(std::uint64_t size, std::uint64_t chunk) noexcept {
  return static_cast<std::size_t>(std::max<std::uint64_t>(1, size / std::max<std::uint64_t>(1, chunk)));
}

void fill_schedule(std::size_t dims, const std::intptr_t* starts, const std::intptr_t* ends, std::size_t divisions,
                   std::intptr_t* schedule, std::uint64_t grain) noexcept {
  if (divisions == 0 || dims == 0) return;
  if (space_size(dims, starts, ends) == 0) {
    fill_empty(dims, divisions, schedule);
  } else if (dims == 1) {
    const std::uint64_t size = length(starts[0], ends[0]);
    fill_line(starts[0], size, divisions, size / divisions >= kGrainsEach * grain ? grain : 1, schedule);
  } else {
    std::intptr_t first[kMostDims];
    std::intptr_t last[kMostDims];
    if (dims > kMostDims) {  // no array has so many: one division does it all
      std::copy_n(starts, dims, schedule);
      std::copy_n(ends, dims, schedule + dims);
      fill_empty(dims, divisions - 1, schedule + 2 * dims);
      return;
    }
    std::copy_n(starts, dims, first);
    std::copy_n(ends, dims, last);
    fill_box(dims, first, last, divisions, schedule);
  }
}

}  // namespace composable
