#include "numba_abi.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <utility>

#include <cxxabi.h>
#include <unistd.h>

#include "arena.h"
#include "arena_limit.h"
#include "region.h"
#include "schedule.h"

namespace composable::numba {

Errors errors;

namespace {

// Divisions per thread of a parfor with the default chunk size. Enough for a triangular loop to level out, few
// enough that what Numba hoists into every division stays small (benchmarks/bench_regions.py, bench_region_sweep.py,
// bench_region_chunks.py). Where the loop has run before, a division is to take this long, within limits.
constexpr double kDivisionUs = 3;
constexpr double kLongDivisionUs = 20;  // once there are kOverDivide of them
constexpr std::uint64_t kOverDivide = 16;
constexpr std::uint64_t kOverDivideMost = 64;
// In a full arena, where others may join only when a permit becomes free. And of a loop that was too short so far to be
// offered before its first block: it may be a long one this time, for who compiles a function by a call on little data
// gives it much next.
constexpr std::uint64_t kOverDivideLittle = 4;

// Iterations that a vectorised kernel takes at once, or several times as many: a division that ends between would run its
// last ones by themselves.
constexpr std::uint64_t kGrain = 32;

// Numba's arrays have few arguments; more than this go to the heap.
constexpr std::size_t kInlineArgs = 32;

std::atomic<int> initial_mask{1};
std::atomic<bool> bitwise{false};

struct Call {
  Kernel kernel;
  char** args;
  std::size_t* dims;
  std::size_t* steps;
  void* data;
  std::size_t dim_count;
  std::size_t arg_count;
  std::intptr_t mask;
  bool own_ids;  // every item is a division with an id of its own
  std::atomic<void*> error{nullptr};
};

// Keeps the first error of a region; true if the region goes on.
bool keep_error(Call& call, const ThreadState& self) noexcept {
  if (errors.pending == nullptr || !errors.pending()) return true;
  // The program's own thread keeps an error where Numba's code looks for it; a worker's is carried over.
  if (!self.worker) return false;
  void* error = errors.take();
  void* none = nullptr;
  if (error != nullptr && !call.error.compare_exchange_strong(none, error, std::memory_order_acq_rel)) {
    errors.drop(error);
  }
  return false;
}

void run_kernel(Call& call, std::size_t begin, std::size_t end, std::intptr_t id, ThreadState& self) {
  KernelScope kernel(self, {.thread_id = id, .mask = call.mask, .chunk_size = 0});
  char* inline_args[kInlineArgs];
  std::size_t inline_dims[kInlineArgs];
  std::unique_ptr<char*[]> heap_args;
  std::unique_ptr<std::size_t[]> heap_dims;
  char** args = inline_args;
  std::size_t* dims = inline_dims;
  if (call.arg_count > kInlineArgs) args = (heap_args = std::make_unique<char*[]>(call.arg_count)).get();
  if (call.dim_count > kInlineArgs) dims = (heap_dims = std::make_unique<std::size_t[]>(call.dim_count)).get();
  for (std::size_t i = 0; i < call.arg_count; ++i) {
    // A step may be negative: unsigned arithmetic wraps to the same address.
    args[i] = reinterpret_cast<char*>(reinterpret_cast<std::uintptr_t>(call.args[i]) + call.steps[i] * begin);
  }
  std::copy_n(call.dims, call.dim_count, dims);
  dims[0] = end - begin;
  try {
    call.kernel(args, dims, call.steps, call.data);
  } catch (abi::__forced_unwind&) {
    // A body that enters the interpreter while that ends is ended by pthread_exit; no frame from here on can be
    // unwound.
    for (;;) pause();
  }
}

bool run_block(void* context, std::size_t begin, std::size_t end, int runner, ThreadState& self) {
  Call& call = *static_cast<Call*>(context);
  if (call.own_ids) {
    for (std::size_t item = begin; item < end; ++item) {
      run_kernel(call, item, item + 1, static_cast<std::intptr_t>(item), self);
      if (!keep_error(call, self)) return false;
    }
    return true;
  }
  run_kernel(call, begin, end, runner, self);
  return keep_error(call, self);
}

// A parfor's first argument is its schedule, of which each division is a row; nothing else moves from item to item.
bool is_parfor(const Call& call) noexcept {
  return call.arg_count > 0 && call.steps[0] > 0 && call.steps[0] % (2 * sizeof(std::intptr_t)) == 0 &&
         std::all_of(call.steps + 1, call.steps + call.arg_count, [](std::size_t step) { return step == 0; });
}

// reduce, accumulate and reduceat of a ufunc carry a dependence from one item to the next: the output is the first
// input, or follows it by one step (numba #1721). A parfor's first step is the size of a schedule row and its
// other steps are 0, so it never looks like that.
bool carries_dependence(const Call& call) noexcept {
  if (call.arg_count < 2) return false;
  const std::size_t last = call.arg_count - 1;
  const auto first_arg = reinterpret_cast<std::uintptr_t>(call.args[0]);
  const auto last_arg = reinterpret_cast<std::uintptr_t>(call.args[last]);
  if (call.steps[0] != call.steps[last]) return false;
  if (call.steps[0] == 0) return first_arg == last_arg;
  return last_arg == first_arg + call.steps[0];
}

// For a loop that takes one thread `known_us`.
std::uint64_t divisions_for(const Arena& arena, double known_us, std::uint64_t sharers) noexcept {
  const std::uint64_t many = sharers * kOverDivide;
  // As many for each: balanced loops stay so.
  const auto each = static_cast<std::uint64_t>(known_us / kDivisionUs) / sharers;
  const std::uint64_t least = Region::is_large(arena, known_us) ? 1 : kOverDivideLittle;
  if (each < kOverDivide) return sharers * std::max(each, least);
  return std::clamp(static_cast<std::uint64_t>(known_us / kLongDivisionUs), many, sharers * kOverDivideMost);
}

}  // namespace

void set_deterministic(bool on) noexcept { bitwise.store(on, std::memory_order_relaxed); }
bool deterministic() noexcept { return bitwise.load(std::memory_order_relaxed); }

extern "C" {

void composable_launch_threads(int count) noexcept { initial_mask.store(std::max(1, count)); }
void composable_synchronize() noexcept {}
void composable_ready() noexcept {}

void composable_add_task(void* fn, void* args, void* dims, void* steps, void* data) noexcept {
  reinterpret_cast<Kernel>(fn)(static_cast<char**>(args), static_cast<std::size_t*>(dims),
                               static_cast<std::size_t*>(steps), data);
}

void composable_parallel_for(void* fn, char** args, std::size_t* dims, std::size_t* steps, void* data,
                             std::size_t inner_ndim, std::size_t array_count, std::intptr_t num_threads) noexcept {
  const std::size_t items = dims[0];
  if (items == 0) return;
  ThreadState& self = this_thread();
  // Numba clears the chunk size before a parfor, whose divisions are the chunks.
  const std::uintptr_t chunk = std::exchange(self.kernel.chunked, false) ? 1 : self.kernel.chunk_size;
  Call call{.kernel = reinterpret_cast<Kernel>(fn),
            .args = args,
            .dims = dims,
            .steps = steps,
            .data = data,
            .dim_count = inner_ndim + 1,
            .arg_count = array_count,
            .mask = num_threads,
            .own_ids = items <= static_cast<std::size_t>(std::max<std::intptr_t>(num_threads, 0))};
  Region::Shape shape{.items = items,
                      .width = static_cast<int>(std::max<std::intptr_t>(num_threads, 1)),
                      .body_id = reinterpret_cast<std::uintptr_t>(fn)};
  if (is_parfor(call)) {
    if (const std::uintptr_t loop = std::exchange(self.kernel.loop, 0); loop != 0) {
      shape.body_id = loop;
      shape.units = static_cast<double>(self.kernel.loop_size) / static_cast<double>(items);
    }
  }
  if (carries_dependence(call)) {
    shape.width = 1;
    call.own_ids = false;
  } else if (chunk > 0) {
    shape.fixed = chunk;
  } else if (items >= 4096) {
    shape.first = std::min<std::size_t>(items / 1024, 256);  // elements of a ufunc, not divisions
  }
  const bool complete = Region::run(Arena::instance(), self, shape, run_block, &call);
  if (void* error = call.error.load(std::memory_order_acquire)) errors.give(error);
  // What numba_layer/parfor.py looks for. Other callers read the arguments no more either, there is an error.
  if (!complete && is_parfor(call)) args[0] = nullptr;
}

void composable_do_scheduling(std::uintptr_t num_dim, std::intptr_t* starts, std::intptr_t* ends,
                              std::uintptr_t num_divisions, std::intptr_t* schedule, std::intptr_t) noexcept {
  fill_schedule(num_dim, starts, ends, num_divisions, schedule, this_thread().kernel.chunked ? 1 : kGrain);
}

void composable_set_num_threads(int count) noexcept { this_thread().kernel.mask = count; }

std::intptr_t composable_get_num_threads() noexcept {
  std::intptr_t& mask = this_thread().kernel.mask;
  if (mask == 0) mask = initial_mask.load(std::memory_order_relaxed);
  return mask;
}

std::intptr_t composable_get_thread_id() noexcept { return this_thread().kernel.thread_id; }

std::uintptr_t composable_set_parallel_chunksize(std::uintptr_t size) noexcept {
  return std::exchange(this_thread().kernel.chunk_size, size);
}

std::uintptr_t composable_get_parallel_chunksize() noexcept { return this_thread().kernel.chunk_size; }

std::uintptr_t composable_get_sched_size(std::uintptr_t num_threads, std::uintptr_t num_dim, std::intptr_t* starts,
                                         std::intptr_t* ends) noexcept {
  const std::uint64_t size = space_size(num_dim, starts, ends);
  KernelState& kernel = this_thread().kernel;
  kernel.chunked = kernel.chunk_size > 0;
  if (kernel.chunked) return divisions_for_chunk(size, kernel.chunk_size);
  if (num_threads <= 1 || deterministic()) return std::max<std::uintptr_t>(num_threads, 1);
  const Arena& arena = Arena::instance();
  // The place of the call stands for the loop: parallel_for finds what it costs under the same number.
  const auto loop = kernel.loop = reinterpret_cast<std::uintptr_t>(__builtin_return_address(0));
  kernel.loop_size = size;
  const double known_us = Region::learned_us(loop) * static_cast<double>(size);
  const auto sharers =
      std::min<std::uint64_t>(num_threads, static_cast<std::uint64_t>(limited(arena.most(), this_thread().limit)));
  std::uint64_t divisions = sharers * kOverDivide;
  if (known_us >= 0) divisions = divisions_for(arena, known_us, sharers);
  if (this_thread().holds.load(std::memory_order_relaxed) && !arena.has_free_permit()) {
    divisions = std::min(divisions, sharers * kOverDivideLittle);
  }
  return static_cast<std::uintptr_t>(std::clamp<std::uint64_t>(divisions, 1, std::max<std::uint64_t>(size, 1)));
}

std::intptr_t* composable_allocate_sched(std::uintptr_t entries) noexcept {
  // Numba does not check for null, so neither malloc's failure nor a zero size may give one.
  auto* schedule = static_cast<std::intptr_t*>(std::malloc(std::max<std::size_t>(entries, 1) * sizeof(std::intptr_t)));
  if (schedule == nullptr) std::abort();
  return schedule;
}

void composable_deallocate_sched(std::intptr_t* schedule) noexcept { std::free(schedule); }

}  // extern "C"

}  // namespace composable::numba
