// Divisions of an iteration space: every iteration in exactly one of them, whatever the bounds.
#include "../schedule.h"

#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "check.h"

using namespace composable;

namespace {

using Bounds = std::vector<std::intptr_t>;

constexpr std::intptr_t kMin = std::numeric_limits<std::intptr_t>::min();
constexpr std::intptr_t kMax = std::numeric_limits<std::intptr_t>::max();
constexpr std::intptr_t kGuard = -77;

struct Schedule {
  std::size_t dims, divisions;
  std::vector<std::intptr_t> rows;
  std::intptr_t start(std::size_t division, std::size_t dim) const { return rows[division * 2 * dims + dim]; }
  std::intptr_t end(std::size_t division, std::size_t dim) const { return rows[division * 2 * dims + dims + dim]; }
  bool empty(std::size_t division) const {
    for (std::size_t d = 0; d < dims; ++d) {
      if (start(division, d) <= end(division, d)) return false;
    }
    return true;
  }
  /// As stored for no iteration: 1..0 in every dimension.
  bool is_one_to_zero(std::size_t division) const {
    for (std::size_t d = 0; d < dims; ++d) {
      if (start(division, d) != 1 || end(division, d) != 0) return false;
    }
    return true;
  }
};

Schedule schedule(const Bounds& starts, const Bounds& ends, std::size_t divisions) {
  Schedule made{starts.size(), divisions, {}};
  const std::size_t entries = 2 * starts.size() * divisions;
  made.rows.assign(entries + 1, kGuard);
  const Bounds starts_before = starts;
  const Bounds ends_before = ends;
  fill_schedule(starts.size(), starts.data(), ends.data(), divisions, made.rows.data());
  CHECK(made.rows[entries] == kGuard);
  CHECK(starts == starts_before && ends == ends_before);
  return made;
}

/// Counts how often each iteration of a small space is in a division, and complains about all but once.
void check_covered_once(const Bounds& starts, const Bounds& ends, std::size_t divisions) {
  const std::size_t dims = starts.size();
  const Schedule made = schedule(starts, ends, divisions);
  std::size_t total = 1;
  for (std::size_t d = 0; d < dims; ++d)
    total *= ends[d] < starts[d] ? 0 : static_cast<std::size_t>(ends[d] - starts[d] + 1);
  std::vector<int> seen(total, 0);
  bool inside = true, well_formed = true;
  for (std::size_t i = 0; i < divisions; ++i) {
    if (made.empty(i)) {
      well_formed = well_formed && made.is_one_to_zero(i);
      continue;
    }
    Bounds at(dims);
    for (std::size_t d = 0; d < dims; ++d) {
      at[d] = made.start(i, d);
      inside =
          inside && starts[d] <= made.start(i, d) && made.start(i, d) <= made.end(i, d) && made.end(i, d) <= ends[d];
    }
    if (!inside) break;
    for (bool more = true; more;) {
      std::size_t place = 0;
      for (std::size_t d = 0; d < dims; ++d) {
        place = place * static_cast<std::size_t>(ends[d] - starts[d] + 1) + static_cast<std::size_t>(at[d] - starts[d]);
      }
      ++seen[place];
      more = false;
      for (std::size_t d = dims; d-- > 0 && !more;) {
        if (at[d] < made.end(i, d)) {
          ++at[d];
          more = true;
        } else {
          at[d] = made.start(i, d);
        }
      }
    }
  }
  bool once = true;
  for (const int count : seen) once = once && count == 1;
  if (CHECK(inside) & CHECK(well_formed) & CHECK(once)) return;
  std::fprintf(stderr, "  %zu divisions of", divisions);
  for (std::size_t d = 0; d < dims; ++d) std::fprintf(stderr, " [%td..%td]", starts[d], ends[d]);
  std::fprintf(stderr, "\n");
}

std::uint64_t size_of(std::intptr_t start, std::intptr_t end) {
  return end < start ? 0 : static_cast<std::uint64_t>(end) - static_cast<std::uint64_t>(start) + 1;
}

/// One dimension, too long to count: the divisions follow one another without a gap, and differ by at most one.
void check_line(std::intptr_t start, std::intptr_t end, std::size_t divisions) {
  const Schedule made = schedule({start}, {end}, divisions);
  std::uint64_t next = static_cast<std::uint64_t>(start);
  std::uint64_t smallest = std::numeric_limits<std::uint64_t>::max(), largest = 0;
  bool in_order = true;
  for (std::size_t i = 0; i < divisions; ++i) {
    const std::uint64_t size = size_of(made.start(i, 0), made.end(i, 0));
    smallest = std::min(smallest, size);
    largest = std::max(largest, size);
    if (size == 0) {
      in_order = in_order && made.is_one_to_zero(i);
      continue;
    }
    in_order = in_order && static_cast<std::uint64_t>(made.start(i, 0)) == next;
    next = static_cast<std::uint64_t>(made.end(i, 0)) + 1;
  }
  CHECK(in_order);
  CHECK(next == static_cast<std::uint64_t>(end) + 1);
  CHECK(largest - smallest <= 1);
}

}  // namespace

TEST(one_dimension_is_covered_once_in_order_by_divisions_that_differ_by_at_most_one) {
  for (std::intptr_t start = -9; start <= 9; start += 3) {
    for (std::intptr_t size = 1; size <= 40; ++size) {
      for (std::size_t divisions = 1; divisions <= 45; ++divisions) {
        check_line(start, start + size - 1, divisions);
        check_covered_once({start}, {start + size - 1}, divisions);
      }
    }
  }
}

TEST(two_dimensions_are_covered_once) {
  for (std::intptr_t rows = 1; rows <= 9; ++rows) {
    for (std::intptr_t columns = 1; columns <= 9; ++columns) {
      for (std::size_t divisions = 1; divisions <= 90; ++divisions) {
        check_covered_once({-4, 2}, {-4 + rows - 1, 2 + columns - 1}, divisions);
      }
    }
  }
}

TEST(three_and_four_dimensions_are_covered_once) {
  for (std::intptr_t a : {1, 2, 5}) {
    for (std::intptr_t b : {1, 3, 4}) {
      for (std::intptr_t c : {1, 2, 7}) {
        for (std::size_t divisions = 1; divisions <= 150; divisions += divisions < 12 ? 1 : 13) {
          check_covered_once({-1, 0, -7}, {-1 + a - 1, b - 1, -7 + c - 1}, divisions);
          check_covered_once({0, -1, 5, -7}, {1, -1 + a - 1, 5 + b - 1, -7 + c - 1}, divisions);
        }
      }
    }
  }
}

TEST(random_spaces_of_up_to_six_dimensions_are_covered_once) {
  std::mt19937 random(11);
  for (int i = 0; i < 2000; ++i) {
    const std::size_t dims = 1 + random() % 6;
    Bounds starts(dims), ends(dims);
    for (std::size_t d = 0; d < dims; ++d) {
      starts[d] = static_cast<std::intptr_t>(random() % 2001) - 1000;
      ends[d] = starts[d] + static_cast<std::intptr_t>(random() % (dims > 3 ? 5 : 12));
    }
    check_covered_once(starts, ends, 1 + random() % 300);
  }
}

TEST(an_empty_dimension_empties_every_division) {
  for (std::size_t divisions : {1, 2, 7}) {
    check_covered_once({0}, {-1}, divisions);
    check_covered_once({5, 0}, {9, -1}, divisions);
    check_covered_once({0, 5}, {-3, 9}, divisions);
    check_covered_once({0, 5, 1}, {3, 4, 1}, divisions);
    check_covered_once({kMax}, {kMin}, divisions);
  }
}

TEST(more_divisions_than_iterations_leave_the_rest_empty) {
  for (const Bounds& ends : {Bounds{2}, Bounds{1, 0}, Bounds{0, 0, 0}}) {
    const Bounds starts(ends.size(), 0);
    const Schedule made = schedule(starts, ends, 64);
    int used = 0;
    for (std::size_t i = 0; i < 64; ++i) used += made.empty(i) ? 0 : 1;
    CHECK(used == static_cast<int>(space_size(ends.size(), starts.data(), ends.data())));
    check_covered_once(starts, ends, 64);
  }
}

TEST(lines_near_the_ends_of_the_range_do_not_overflow) {
  for (std::size_t divisions : {1, 2, 3, 7, 64, 1000}) {
    check_line(kMin, kMin + 100, divisions);
    check_line(kMax - 100, kMax, divisions);
    check_line(kMin, kMin, divisions);
    check_line(kMax, kMax, divisions);
    check_line(kMin, -1, divisions);
    check_line(0, kMax, divisions);
    check_line(-5, kMax - 6, divisions);
    check_line(kMin + 1, kMax, divisions);
    check_line(kMin, kMax - 1, divisions);
  }
}

TEST(long_divisions_of_a_line_are_whole_grains_but_for_the_last) {
  constexpr std::uint64_t kGrain = 32;
  for (const std::intptr_t start : {std::intptr_t{-7}, kMin, kMax - 2'000'000}) {
    for (const std::size_t divisions : {1, 2, 3, 7, 32}) {
      for (const std::uint64_t each : {1, 500, 511, 512, 513, 1000, 40'001}) {
        const std::uint64_t size = each * divisions + divisions / 2;
        std::vector<std::intptr_t> rows(2 * divisions);
        const auto end = static_cast<std::intptr_t>(static_cast<std::uint64_t>(start) + size - 1);
        fill_schedule(1, &start, &end, divisions, rows.data(), kGrain);
        std::uint64_t next = static_cast<std::uint64_t>(start), smallest = size, largest = 0;
        for (std::size_t i = 0; i < divisions; ++i) {
          CHECK(static_cast<std::uint64_t>(rows[2 * i]) == next);
          const std::uint64_t length = size_of(rows[2 * i], rows[2 * i + 1]);
          if (each >= 512 && i + 1 < divisions) CHECK(length % kGrain == 0);
          next += length;
          smallest = std::min(smallest, length);
          largest = std::max(largest, length);
        }
        CHECK(next == static_cast<std::uint64_t>(end) + 1);
        CHECK(largest - smallest < (each >= 512 ? 2 * kGrain : 2));
      }
    }
  }
}

TEST(boxes_near_the_ends_of_the_range_are_disjoint_and_complete_by_volume) {
  const std::vector<std::pair<Bounds, Bounds>> spaces = {{{kMin, 0}, {kMin + 2, 1'000'000'000'000}},
                                                         {{0, kMax - 3}, {1'000'000'000'000, kMax}},
                                                         {{kMin, kMax - 1}, {-1, kMax - 1}},
                                                         {{kMax - 1, kMin, -1}, {kMax, kMin + 1, 1'000'000'000}}};
  for (const auto& [starts, ends] : spaces) {
    for (std::size_t divisions : {1, 2, 3, 10, 33}) {
      const Schedule made = schedule(starts, ends, divisions);
      std::uint64_t volume = 0;
      for (std::size_t i = 0; i < divisions; ++i) {
        if (made.empty(i)) continue;
        std::uint64_t box = 1;
        for (std::size_t d = 0; d < starts.size(); ++d) {
          CHECK(starts[d] <= made.start(i, d) && made.end(i, d) <= ends[d]);
          box *= size_of(made.start(i, d), made.end(i, d));
        }
        volume += box;
        for (std::size_t j = 0; j < i; ++j) {
          bool apart = made.empty(j);
          for (std::size_t d = 0; d < starts.size(); ++d) {
            apart = apart || made.end(i, d) < made.start(j, d) || made.end(j, d) < made.start(i, d);
          }
          CHECK(apart);
        }
      }
      CHECK(volume == space_size(starts.size(), starts.data(), ends.data()));
    }
  }
}

TEST(an_outer_dimension_is_cut_before_an_inner_one) {
  const Schedule made = schedule({0, 0}, {99, 9999}, 10);
  for (std::size_t i = 0; i < 10; ++i) {
    CHECK(made.start(i, 1) == 0 && made.end(i, 1) == 9999);
    CHECK(made.end(i, 0) - made.start(i, 0) == 9);
  }
}

TEST(no_dimension_and_no_division_write_nothing) {
  std::intptr_t row[2] = {kGuard, kGuard};
  const std::intptr_t bound = 3;
  fill_schedule(0, nullptr, nullptr, 4, row);
  fill_schedule(1, &bound, &bound, 0, row);
  CHECK(row[0] == kGuard && row[1] == kGuard);
}

TEST(more_dimensions_than_an_array_has_are_one_division) {
  const Bounds starts(70, 0);
  Bounds ends(70, 0);
  ends[3] = 4;
  const Schedule made = schedule(starts, ends, 3);
  CHECK(!made.empty(0) && made.end(0, 3) == 4);
  CHECK(made.is_one_to_zero(1) && made.is_one_to_zero(2));
  check_covered_once(Bounds(64, -1), Bounds(64, -1), 3);
}

TEST(space_size_saturates) {
  const Bounds zero{0, 0, 0}, large{kMax, kMax, 5}, two{1, 2, -1};
  CHECK(space_size(3, zero.data(), large.data()) == std::numeric_limits<std::uint64_t>::max());
  CHECK(space_size(2, zero.data(), two.data()) == 6);
  CHECK(space_size(3, zero.data(), two.data()) == 0);
  CHECK(space_size(0, nullptr, nullptr) == 0);
  CHECK(space_size(1, zero.data(), large.data()) == std::uint64_t{1} << 63);
}

TEST(chunks_become_as_many_divisions_as_there_are_whole_ones) {
  CHECK(divisions_for_chunk(100, 10) == 10);
  CHECK(divisions_for_chunk(109, 10) == 10);
  CHECK(divisions_for_chunk(9, 10) == 1);
  CHECK(divisions_for_chunk(0, 10) == 1);
  CHECK(divisions_for_chunk(7, 0) == 7);
  CHECK(divisions_for_chunk(std::numeric_limits<std::uint64_t>::max(), 1) == std::numeric_limits<std::uint64_t>::max());
}

int main() { return composable::testing::run_all(); }
