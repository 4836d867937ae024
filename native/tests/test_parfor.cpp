// Parfors as Numba's generated code launches them: divisions, ids, nesting, reductions, errors.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "kernels.h"

using namespace composable;
using namespace composable::testing;

namespace {

// A language whose errors are numbers: pending on a thread until taken; each taken one is given or dropped.
thread_local long pending_error = 0;
std::atomic<int> raised{0}, taken{0}, given{0}, dropped{0};

const Errors kErrors = {.pending = []() noexcept { return pending_error != 0; },
                        .take = []() noexcept -> void* {
                          ++taken;
                          return reinterpret_cast<void*>(std::exchange(pending_error, 0));
                        },
                        .give =
                            [](void* error) noexcept {
                              if (pending_error == 0) {
                                ++given;
                                pending_error = reinterpret_cast<long>(error);
                              } else {
                                ++dropped;
                              }
                            },
                        .drop = [](void*) noexcept { ++dropped; }};

/// A parfor over inclusive bounds: `body(starts, ends, id)` for each division that is not empty.
using Division = std::function<void(const std::intptr_t* starts, const std::intptr_t* ends, std::size_t id)>;

struct Parfor {
  Seen seen;
  std::size_t dims;
  Division body;
};

void parfor_kernel(char** args, std::size_t* dims, std::size_t* steps, void* data) {
  Parfor& loop = *static_cast<Parfor*>(data);
  char* row = args[0];
  InKernel here(loop.seen, 1);
  for (std::size_t i = 0; i < dims[0]; ++i, row += steps[0]) {
    const auto* bounds = reinterpret_cast<std::intptr_t*>(row);
    if (bounds[0] <= bounds[loop.dims]) loop.body(bounds, bounds + loop.dims, here.id());
    if (pending_error != 0) return;  // as Numba's do
  }
}

/// As parfor_lowering.py does it; returns how many divisions there were.
std::size_t parfor(Parfor& loop, std::vector<std::intptr_t> starts, std::vector<std::intptr_t> ends) {
  loop.dims = starts.size();
  const auto threads = static_cast<std::uintptr_t>(composable_get_num_threads());
  const std::uintptr_t divisions = composable_get_sched_size(threads, loop.dims, starts.data(), ends.data());
  const std::uintptr_t chunk = composable_set_parallel_chunksize(0);
  std::intptr_t* schedule = composable_allocate_sched(2 * loop.dims * divisions);
  composable_do_scheduling(loop.dims, starts.data(), ends.data(), divisions, schedule, 0);
  std::size_t shape[2] = {divisions, 2 * loop.dims};
  std::size_t steps[2] = {2 * loop.dims * sizeof(std::intptr_t), sizeof(std::intptr_t)};
  char* args[1] = {bytes(schedule)};
  composable_parallel_for(reinterpret_cast<void*>(&parfor_kernel), args, shape, steps, &loop, 1, 1,
                          static_cast<std::intptr_t>(threads));
  composable_deallocate_sched(schedule);
  composable_set_parallel_chunksize(chunk);
  return divisions;
}

}  // namespace

TEST(a_parfor_visits_every_iteration_once) {
  Clean rest;
  struct Space {
    std::vector<std::intptr_t> starts, ends;
  };
  for (const auto& [starts, ends] : {Space{{0}, {0}}, Space{{-7}, {992}}, Space{{3}, {2}}, Space{{0, -5}, {40, 12}},
                                     Space{{1, 1, -3}, {9, 2, 30}}}) {
    for (const int threads : {1, 2, rest.slots, 9}) {
      for (const std::uintptr_t chunk : {0, 1, 10, 100'000}) {
        composable_set_num_threads(threads);
        composable_set_parallel_chunksize(chunk);
        std::size_t size = 1;
        for (std::size_t d = 0; d < starts.size(); ++d) size *= static_cast<std::size_t>(ends[d] - starts[d] + 1);
        std::vector<std::atomic<int>> visits(size);
        Parfor loop;
        loop.body = [&, &from = starts, &to = ends](const std::intptr_t* first, const std::intptr_t* last,
                                                    std::size_t) {
          std::vector<std::intptr_t> at(first, first + from.size());
          for (bool more = true; more;) {
            std::size_t place = 0;
            for (std::size_t d = 0; d < at.size(); ++d) {
              place = place * static_cast<std::size_t>(to[d] - from[d] + 1) + static_cast<std::size_t>(at[d] - from[d]);
            }
            ++visits[place];
            more = false;
            for (std::size_t d = at.size(); d-- > 0 && !more;) {
              more = at[d] < last[d];
              at[d] = more ? at[d] + 1 : first[d];
            }
          }
        };
        const std::size_t divisions = parfor(loop, starts, ends);
        CHECK(std::all_of(visits.begin(), visits.end(), [](const auto& count) { return count == 1; }));
        CHECK(chunk == 0 || divisions == std::max<std::size_t>(1, size / chunk));
        CHECK(composable_get_parallel_chunksize() == chunk && composable_get_num_threads() == threads);
        CHECK(loop.seen.crowd.most() <= std::min(threads, rest.slots));
      }
    }
  }
}

TEST(the_number_of_divisions_follows_threads_and_iterations) {
  Clean rest;
  std::intptr_t start = 0, many = 99'999, few = 2, none = -1;
  CHECK(composable_get_sched_size(1, 1, &start, &many) == 1);
  CHECK(composable_get_sched_size(0, 1, &start, &many) == 1);
  CHECK(composable_get_sched_size(8, 1, &start, &few) == 3);
  CHECK(composable_get_sched_size(8, 1, &start, &none) == 1);
  CHECK(composable_get_sched_size(8, 1, &start, &many) >= static_cast<std::uintptr_t>(std::min(8, rest.slots)));
  composable_set_parallel_chunksize(1000);
  CHECK(composable_get_sched_size(8, 1, &start, &many) == 100);
  composable_set_parallel_chunksize(0);
  set_deterministic(true);
  CHECK(deterministic());
  CHECK(composable_get_sched_size(8, 1, &start, &many) == 8);
  CHECK(composable_get_sched_size(8, 1, &start, &few) == 8);
}

TEST(a_reduction_into_a_cell_per_id_loses_nothing) {
  Clean rest;
  for (const int threads : {1, 2, 5}) {
    composable_set_num_threads(threads);
    for (int round = 0; round < 30; ++round) {
      std::vector<long> cells(static_cast<std::size_t>(threads), 0);
      Parfor loop;
      loop.body = [&](const std::intptr_t* first, const std::intptr_t* last, std::size_t id) {
        for (std::intptr_t i = *first; i <= *last; ++i) cells[id] += i;
        spin(1us);
      };
      parfor(loop, {0}, {9'999});
      CHECK(std::accumulate(cells.begin(), cells.end(), 0L) == 49'995'000);
    }
  }
}

TEST(a_deterministic_parfor_gives_each_division_the_id_of_its_row) {
  Clean rest;
  set_deterministic(true);
  composable_set_num_threads(5);
  std::array<std::atomic<std::intptr_t>, 5> firsts{};
  Parfor loop;
  loop.body = [&](const std::intptr_t* first, const std::intptr_t*, std::size_t id) {
    CHECK(firsts[id] == 0);
    firsts[id] = *first;
    spin(5us);
  };
  CHECK(parfor(loop, {1}, {500}) == 5);
  for (std::size_t id = 0; id < 5; ++id) CHECK(firsts[id] == static_cast<std::intptr_t>(id) * 100 + 1);
}

TEST(nesting_and_changes_in_a_kernel_are_not_seen_outside_it) {
  Clean rest;
  composable_set_num_threads(3);
  Parfor outer;
  std::atomic<int> iterations{0};
  outer.body = [&](const std::intptr_t* first, const std::intptr_t* last, std::size_t id) {
    composable_set_num_threads(2);
    Parfor inner;
    inner.body = [&](const std::intptr_t* inner_first, const std::intptr_t* inner_last, std::size_t) {
      composable_set_num_threads(1);
      composable_set_parallel_chunksize(77);
      iterations += static_cast<int>(*inner_last - *inner_first + 1);
    };
    for (std::intptr_t i = *first; i <= *last; ++i) parfor(inner, {0}, {49});
    CHECK(composable_get_num_threads() == 2);
    CHECK(composable_get_parallel_chunksize() == 0);
    CHECK(composable_get_thread_id() == static_cast<std::intptr_t>(id));
  };
  parfor(outer, {0}, {99});
  CHECK(iterations == 100 * 50);
  CHECK(composable_get_num_threads() == 3 && composable_get_thread_id() == 0);
  CHECK(composable_get_parallel_chunksize() == 0);
  CHECK(rest.arena.counts().peak_running <= rest.slots);
}

TEST(many_program_threads_launch_at_once) {
  Clean rest;
  std::vector<std::thread> program;
  for (int i = 0; i < 4; ++i) {
    program.emplace_back([&, i] {
      composable_set_num_threads(1 + i);
      for (int round = 0; round < 200; ++round) {
        std::atomic<long> sum{0};
        Parfor loop;
        loop.body = [&](const std::intptr_t* first, const std::intptr_t* last, std::size_t) {
          for (std::intptr_t k = *first; k <= *last; ++k) sum += k;
          spin(500ns);
        };
        parfor(loop, {0}, {99});
        CHECK(sum == 4950);
      }
    });
  }
  for (std::thread& thread : program) thread.join();
  CHECK(rest.arena.counts().peak_running <= std::max(4, rest.slots));
}

TEST(the_first_error_of_any_thread_reaches_the_caller_and_cancels_the_rest) {
  Clean rest;
  errors = kErrors;
  composable_set_num_threads(4);
  for (int round = 0; round < 100; ++round) {
    raised = taken = given = dropped = 0;
    std::atomic<int> divisions{0};
    const std::thread::id caller = std::this_thread::get_id();
    Parfor loop;
    loop.body = [&](const std::intptr_t* first, const std::intptr_t*, std::size_t) {
      ++divisions;
      spin(10us);
      // On the caller, on workers, or on all.
      const bool mine = std::this_thread::get_id() == caller;
      if (*first < 20 || (round % 3 == 0 && mine) || (round % 3 == 1 && !mine)) return;
      ++raised;
      pending_error = 1000 + *first;
    };
    composable_set_parallel_chunksize(1);
    parfor(loop, {0}, {199});
    composable_set_parallel_chunksize(0);
    CHECK((pending_error != 0) == (raised > 0));
    if (round % 3 == 2) CHECK(divisions <= 20 + rest.slots);
    CHECK(taken == given + dropped);
    pending_error = 0;
  }
  errors = {};
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
