// The functions that Numba's generated code calls, as Numba declares them (numba/np/ufunc/parallel.py,
// numba/parfors/parfor_lowering.py). Each is a few lines onto Region or schedule; none throws, since compiled frames
// cannot be unwound.
#pragma once

#include <cstddef>
#include <cstdint>

namespace composable::numba {

using Kernel = void (*)(char** args, std::size_t* dims, std::size_t* steps, void* data);

/// What the layer needs of the language whose errors kernels raise; set by the bindings. All may be null.
struct Errors {
  /// Whether an error is pending on the calling thread.
  bool (*pending)() noexcept = nullptr;
  /// Takes it off the calling thread.
  void* (*take)() noexcept = nullptr;
  /// Makes `error` the calling thread's; drops it if one is pending already.
  void (*give)(void* error) noexcept = nullptr;
  void (*drop)(void* error) noexcept = nullptr;
};
extern Errors errors;

/// Reductions bitwise equal from run to run for a given thread count: as many divisions as threads, each with an id
/// of its own.
void set_deterministic(bool on) noexcept;
bool deterministic() noexcept;

extern "C" {
void composable_launch_threads(int count) noexcept;
void composable_synchronize() noexcept;
void composable_ready() noexcept;
void composable_add_task(void* fn, void* args, void* dims, void* steps, void* data) noexcept;
void composable_parallel_for(void* fn, char** args, std::size_t* dims, std::size_t* steps, void* data,
                             std::size_t inner_ndim, std::size_t array_count, std::intptr_t num_threads) noexcept;
void composable_do_scheduling(std::uintptr_t num_dim, std::intptr_t* starts, std::intptr_t* ends,
                              std::uintptr_t num_divisions, std::intptr_t* schedule, std::intptr_t debug) noexcept;
void composable_set_num_threads(int count) noexcept;
std::intptr_t composable_get_num_threads() noexcept;
std::intptr_t composable_get_thread_id() noexcept;
std::uintptr_t composable_set_parallel_chunksize(std::uintptr_t size) noexcept;
std::uintptr_t composable_get_parallel_chunksize() noexcept;
std::uintptr_t composable_get_sched_size(std::uintptr_t num_threads, std::uintptr_t num_dim, std::intptr_t* starts,
                                         std::intptr_t* ends) noexcept;
std::intptr_t* composable_allocate_sched(std::uintptr_t entries) noexcept;
void composable_deallocate_sched(std::intptr_t* schedule) noexcept;
}

}  // namespace composable::numba
