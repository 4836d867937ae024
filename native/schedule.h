// How an iteration space is cut into divisions: pure index arithmetic behind Numba's do_scheduling_*.
//
// A space has `dims` dimensions with inclusive bounds starts[d]..ends[d]; it is empty where an end lies before its
// start. A division is one row of a schedule: dims starts, then dims ends, inclusive; an empty one is 1..0.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace composable {

/// Where part `part` of `parts` of a line begins, relative to its start; their sizes differ by at most one.
inline std::uint64_t cut(std::uint64_t size, std::uint64_t part, std::uint64_t parts) noexcept {
  return part * (size / parts) + std::min(part, size % parts);
}

/// Iterations in the space; saturates instead of overflowing.
std::uint64_t space_size(std::size_t dims, const std::intptr_t* starts, const std::intptr_t* ends) noexcept;

/// Divisions of about `chunk` iterations each: as many whole chunks as there are, at least one.
std::size_t divisions_for_chunk(std::uint64_t size, std::uint64_t chunk) noexcept;

/// Fills `divisions` rows that cover every iteration exactly once, in order for one dimension, each a box. Sizes of
/// one-dimensional divisions differ by at most one; long ones are whole numbers of `grain`, but for the last, and differ
/// by less than two grains.
void fill_schedule(std::size_t dims, const std::intptr_t* starts, const std::intptr_t* ends, std::size_t divisions,
                   std::intptr_t* schedule, std::uint64_t grain = 1) noexcept;

}  // namespace composable
