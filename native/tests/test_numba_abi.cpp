// The ABI called as Numba's generated code calls it for ufuncs: any steps, masks, ids, chunk sizes, dependences.
#include "../numba_abi.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

#include "kernels.h"

using namespace composable;
using namespace composable::testing;

namespace {

/// out = a + 2 * b, as the inner loop of a ufunc with two inputs.
void add_twice(char** args, std::size_t* dims, std::size_t* steps, void* data) {
  InKernel here(*static_cast<Seen*>(data), dims[0]);
  char *a = args[0], *b = args[1], *out = args[2];
  for (std::size_t i = 0; i < dims[0]; ++i, a += steps[0], b += steps[1], out += steps[2]) {
    *reinterpret_cast<double*>(out) = *reinterpret_cast<double*>(a) + 2 * *reinterpret_cast<double*>(b);
  }
}

struct Ufunc {
  std::array<char*, 3> args;
  std::array<std::size_t, 3> steps;
  void run(std::size_t items, std::intptr_t num_threads, Seen& seen) {
    const auto args_before = args;
    const auto steps_before = steps;
    std::size_t dims[1] = {items};
    composable_parallel_for(reinterpret_cast<void*>(&add_twice), args.data(), dims, steps.data(), &seen, 0, 3,
                            num_threads);
    CHECK(args == args_before && steps == steps_before && dims[0] == items);
    CHECK(composable_get_thread_id() == 0);
  }
};

}  // namespace

TEST(the_initial_mask_is_what_launch_threads_was_told) {
  Clean rest;
  composable_launch_threads(6);
  CHECK(composable_get_num_threads() == 6);
  composable_set_num_threads(2);
  std::thread([] {
    CHECK(composable_get_num_threads() == 6);
    CHECK(composable_get_thread_id() == 0);
    CHECK(composable_get_parallel_chunksize() == 0);
  }).join();
  CHECK(composable_get_num_threads() == 2);
  composable_launch_threads(0);
  std::thread([] { CHECK(composable_get_num_threads() == 1); }).join();
  composable_launch_threads(4);
  composable_synchronize();
  composable_ready();
}

TEST(a_ufunc_is_right_for_positive_negative_and_zero_steps_and_any_number_of_threads) {
  Clean rest;
  for (const std::size_t n : {1, 2, 5, 100, 4095, 4096, 50'000}) {
    std::vector<double> a(n), b(n), out(n);
    for (std::size_t i = 0; i < n; ++i) a[i] = static_cast<double>(i), b[i] = static_cast<double>(i) * 10;
    for (const std::intptr_t threads : {0, 1, 2, rest.slots, 3 * rest.slots, 200}) {
      Seen seen;
      std::fill(out.begin(), out.end(), -1);
      Ufunc{{bytes(a.data()), bytes(&b[n - 1]), bytes(out.data())}, {step(8), step(-8), step(8)}}.run(n, threads, seen);
      bool right = true;
      for (std::size_t i = 0; i < n; ++i) right = right && out[i] == a[i] + 2 * b[n - 1 - i];
      CHECK(right);
      Ufunc{{bytes(a.data()), bytes(&b[n - 1]), bytes(&out[n - 1])}, {step(8), step(0), step(-8)}}.run(n, threads,
                                                                                                       seen);
      right = true;
      for (std::size_t i = 0; i < n; ++i) right = right && out[n - 1 - i] == a[i] + 2 * b[n - 1];
      CHECK(right);
      CHECK(seen.crowd.most() <= std::max<std::intptr_t>(1, std::min<std::intptr_t>(threads, rest.slots)));
    }
  }
}

TEST(no_item_calls_no_kernel) {
  Clean rest;
  Seen seen;
  Ufunc{{nullptr, nullptr, nullptr}, {8, 8, 8}}.run(0, 4, seen);
  CHECK(seen.calls == 0);
}

TEST(an_operation_in_place_runs_in_parallel) {
  Clean rest;
  Seen seen;
  std::vector<double> a(50'000, 1.0), b(50'000, 3.0);
  Ufunc{{bytes(a.data()), bytes(b.data()), bytes(a.data())}, {8, 8, 8}}.run(a.size(), 4, seen);
  CHECK(std::count(a.begin(), a.end(), 7.0) == 50'000);
  if (rest.slots > 1) CHECK(seen.calls > 1);
}

TEST(reduce_and_accumulate_run_as_one_call_on_the_calling_thread) {
  Clean rest;
  for (const std::intptr_t threads : {1, 4}) {
    for (const std::uintptr_t chunk : {0, 16}) {
      composable_set_parallel_chunksize(chunk);
      const std::size_t n = 20'000;
      std::vector<double> in(n, 1.0);
      double total = 0;  // out = out + 2 * in
      Seen reduce;
      Ufunc{{bytes(&total), bytes(in.data()), bytes(&total)}, {0, 8, 0}}.run(n, threads, reduce);
      CHECK(total == 2.0 * n && reduce.calls == 1);
      std::vector<double> out(n, 1.0);  // out[i] = out[i - 1] + 2 * in[i]
      Seen accumulate;
      Ufunc{{bytes(out.data()), bytes(&in[1]), bytes(&out[1])}, {8, 8, 8}}.run(n - 1, threads, accumulate);
      CHECK(out[n - 1] == 1.0 + 2.0 * (n - 1) && accumulate.calls == 1);
      std::fill(out.begin(), out.end(), 1.0);
      Seen backwards;  // the same from the end, on a reversed view
      Ufunc{{bytes(&out[n - 1]), bytes(&in[n - 2]), bytes(&out[n - 2])}, {step(-8), step(-8), step(-8)}}.run(
          n - 1, threads, backwards);
      CHECK(out[0] == 1.0 + 2.0 * (n - 1) && backwards.calls == 1);
    }
  }
}

TEST(a_chunk_size_is_the_size_of_every_call_but_the_last) {
  Clean rest;
  std::vector<double> a(10'007, 1.0), out(10'007);
  for (const std::uintptr_t chunk : {1, 3, 1000, 20'000}) {
    CHECK(composable_set_parallel_chunksize(chunk) == 0);
    Seen seen;
    Ufunc{{bytes(a.data()), bytes(a.data()), bytes(out.data())}, {8, 8, 8}}.run(a.size(), 4, seen);
    CHECK(seen.longest == std::min<std::size_t>(chunk, a.size()));
    CHECK(seen.calls == static_cast<int>((a.size() + chunk - 1) / chunk));
    CHECK(composable_get_parallel_chunksize() == chunk);
    CHECK(composable_set_parallel_chunksize(0) == chunk);
  }
}

TEST(a_gufunc_gets_its_core_dimensions_and_inner_steps_unchanged) {
  Clean rest;
  // (n),(n)->() over `outer` rows: steps of the three arguments, then the inner steps.
  const std::size_t outer = 3000, n = 4;
  std::vector<double> a(outer * n, 2.0), b(outer * n, 3.0), out(outer);
  char* args[3] = {bytes(a.data()), bytes(b.data()), bytes(out.data())};
  std::size_t dims[2] = {outer, n}, steps[5] = {32, 32, 8, 8, 8};
  const auto kernel = [](char** arg, std::size_t* dim, std::size_t* stride, void*) {
    CHECK(dim[1] == 4);
    for (std::size_t i = 0; i < dim[0]; ++i) {
      double sum = 0;
      for (std::size_t j = 0; j < dim[1]; ++j) {
        sum += *reinterpret_cast<double*>(arg[0] + i * stride[0] + j * stride[3]) *
               *reinterpret_cast<double*>(arg[1] + i * stride[1] + j * stride[4]);
      }
      *reinterpret_cast<double*>(arg[2] + i * stride[2]) = sum;
    }
  };
  composable_parallel_for(reinterpret_cast<void*>(+kernel), args, dims, steps, nullptr, 1, 3, 4);
  CHECK(std::count(out.begin(), out.end(), 24.0) == 3000);
}

TEST(more_arguments_and_dimensions_than_fit_inline) {
  Clean rest;
  constexpr std::size_t kArgs = 70, kDims = 50;
  std::vector<std::vector<int>> data(kArgs, std::vector<int>(500, 1));
  std::vector<char*> args;
  for (auto& one : data) args.push_back(bytes(one.data()));
  std::vector<std::size_t> steps(kArgs, sizeof(int)), dims(kDims + 1, 9);
  dims[0] = 500;
  const auto kernel = [](char** arg, std::size_t* dim, std::size_t* stride, void*) {
    CHECK(dim[50] == 9);
    for (std::size_t k = 0; k < 70; ++k) {
      for (std::size_t i = 0; i < dim[0]; ++i) ++*reinterpret_cast<int*>(arg[k] + i * stride[k]);
    }
  };
  composable_parallel_for(reinterpret_cast<void*>(+kernel), args.data(), dims.data(), steps.data(), nullptr, kDims,
                          kArgs, 4);
  for (const auto& one : data) CHECK(std::count(one.begin(), one.end(), 2) == 500);
}

TEST(what_numba_takes_for_granted) {
  Clean rest;
  std::intptr_t* none = composable_allocate_sched(0);
  CHECK(none != nullptr);  // Numba never checks
  composable_deallocate_sched(none);
  composable_deallocate_sched(nullptr);
  std::size_t dims[1] = {3}, steps[3] = {8, 8, 8};
  double a[3] = {1, 2, 3}, out[3];
  char* args[3] = {bytes(a), bytes(a), bytes(out)};
  Seen seen;
  composable_launch_threads(4);
  composable_add_task(reinterpret_cast<void*>(&add_twice), args, dims, steps, &seen);
  CHECK(out[0] == 3 && out[1] == 6 && out[2] == 9 && seen.calls == 1);
}

int main(int argc, char** argv) { return run_with_slots(argc, argv); }
