#include "trace.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>

#include <pthread.h>
#include <sys/mman.h>

#include "thread_state.h"
#include "ticks.h"

namespace composable::trace {

std::atomic<std::uint32_t> session_{0};

namespace {

// A thread asks for the right to so many spans at a time.
constexpr std::uint32_t kGrant = 1024;

// A region below this is small, and two of them no further apart are one span (benchmarks/bench_trace_cost.py).
constexpr double kSmallUs = 20;
constexpr double kApartUs = 5;

// A span in memory. Relaxed atomics cost what plain words do, and let a reader look while its owner goes on.
struct Cell {
  std::atomic<std::uint64_t> begin, end, what, about;
};
static_assert(sizeof(Cell) == 32);

std::uint64_t pack(const Span& span) noexcept {
  return std::uint64_t{span.count} << 32 | std::uint64_t{span.width} << 8 | static_cast<std::uint64_t>(span.kind);
}

std::uint64_t count_of(const Cell& cell) noexcept { return cell.about.load(std::memory_order_relaxed) >> 32; }

void write(Cell& cell, const Span& span) noexcept {
  cell.begin.store(span.begin, std::memory_order_relaxed);
  cell.end.store(span.end, std::memory_order_relaxed);
  cell.what.store(span.what, std::memory_order_relaxed);
  cell.about.store(pack(span), std::memory_order_relaxed);
}

Span read(const Cell& cell) noexcept {
  const std::uint64_t about = cell.about.load(std::memory_order_relaxed);
  return {.begin = cell.begin.load(std::memory_order_relaxed),
          .end = cell.end.load(std::memory_order_relaxed),
          .what = static_cast<std::uintptr_t>(cell.what.load(std::memory_order_relaxed)),
          .count = static_cast<std::uint32_t>(about >> 32),
          .width = static_cast<std::uint16_t>(about >> 8),
          .kind = static_cast<Kind>(about & 0xff)};
}

}  // namespace

// What every region looks at is in one cache line.
struct alignas(64) Buffer {
  std::atomic<std::uint32_t> session{0};  // whose spans these are; written by the owner
  std::atomic<std::uint32_t> size{0};     // spans readers may look at; released by the owner
  // Small regions of one body that follow each other, not in the cells yet; none while its count is 0.
  Cell run{};
  std::uint64_t small = 0;    // kSmallUs in ticks
  std::uint64_t apart = 0;    // kApartUs
  std::uint32_t granted = 0;  // the owner's right to spans
  std::atomic<std::uint64_t> dropped{0};
  std::atomic<std::uint64_t> dropped_at{0};
  Cell* cells = nullptr;  // reserved for the whole limit, given memory by the kernel page by page
  std::size_t capacity = 0;
  // Under the mutex:
  pid_t tid = 0;
  char name[16] = "";
  bool worker = false;
  bool owned = false;
};

namespace {

// Never destroyed: threads outlive main().
struct State {
  std::mutex mutex;
  std::vector<Buffer*> buffers;
  std::uint32_t sessions = 0;  // begun so far
  std::size_t limit = 0;
  Times times{};
  std::atomic<std::int64_t> budget{0};
};
State& state = *new State;

void unmap(Buffer& buffer) noexcept {
  if (buffer.cells != nullptr) munmap(buffer.cells, buffer.capacity * sizeof(Cell));
  buffer.cells = nullptr;
  buffer.capacity = 0;
}

void reserve(Buffer& buffer, std::size_t limit) noexcept {
  if (buffer.capacity >= limit) return;
  unmap(buffer);
  void* memory =
      mmap(nullptr, limit * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;  // what the thread would have recorded is counted as dropped
  buffer.cells = static_cast<Cell*>(memory);
  buffer.capacity = limit;
}

// The thread's buffer, emptied for a session that it meets for the first time. Null: no memory, or the session is over.
Buffer* meet(ThreadState& self, std::uint32_t session) noexcept {
  std::lock_guard held(state.mutex);
  if (session_.load(std::memory_order_relaxed) != session) return nullptr;
  Buffer* buffer = self.trace_buffer;
  if (buffer == nullptr) {
    const auto free = std::find_if(state.buffers.begin(), state.buffers.end(), [&](const Buffer* other) {
      return !other->owned && other->session.load(std::memory_order_relaxed) != session;
    });
    if (free != state.buffers.end()) {
      buffer = *free;
    } else {
      try {
        state.buffers.reserve(state.buffers.size() + 1);
        buffer = new Buffer;
      } catch (const std::bad_alloc&) {
        return nullptr;
      }
      state.buffers.push_back(buffer);
    }
    buffer->owned = true;
    self.trace_buffer = buffer;
  }
  reserve(*buffer, state.limit);
  buffer->tid = self.tid;
  buffer->worker = self.worker;
  pthread_getname_np(pthread_self(), buffer->name, sizeof buffer->name);
  buffer->granted = 0;
  buffer->small = static_cast<std::uint64_t>(kSmallUs * ticks_per_us());
  buffer->apart = static_cast<std::uint64_t>(kApartUs * ticks_per_us());
  buffer->dropped.store(0, std::memory_order_relaxed);
  buffer->size.store(0, std::memory_order_relaxed);
  buffer->run.about.store(0, std::memory_order_relaxed);
  buffer->session.store(session, std::memory_order_release);
  return buffer;
}

Buffer* buffer_of(ThreadState& self, std::uint32_t session) noexcept {
  Buffer* buffer = self.trace_buffer;
  if (buffer != nullptr && buffer->session.load(std::memory_order_relaxed) == session) [[likely]]
    return buffer;
  return meet(self, session);
}

void append(Buffer& buffer, const Span& span) noexcept;

// The run of small regions is over.
void flush(Buffer& buffer) noexcept {
  const Span run = read(buffer.run);
  buffer.run.about.store(0, std::memory_order_relaxed);
  append(buffer, run);
}

void append(Buffer& buffer, const Span& span) noexcept {
  if (count_of(buffer.run) > 0) [[unlikely]]
    flush(buffer);
  const std::uint32_t size = buffer.size.load(std::memory_order_relaxed);
  if (size == buffer.granted) [[unlikely]] {
    const auto wanted = static_cast<std::int64_t>(std::min<std::size_t>(kGrant, buffer.capacity - size));
    const std::int64_t left = wanted > 0 ? state.budget.fetch_sub(wanted, std::memory_order_relaxed) : 0;
    const std::int64_t got = std::clamp<std::int64_t>(left, 0, wanted);
    if (got == 0) {
      if (buffer.dropped.fetch_add(1, std::memory_order_relaxed) == 0) {
        buffer.dropped_at.store(span.begin, std::memory_order_relaxed);
      }
      return;
    }
    buffer.granted += static_cast<std::uint32_t>(got);
  }
  write(buffer.cells[size], span);
  buffer.size.store(size + 1, std::memory_order_release);
}

}  // namespace

void start(std::size_t limit) {
  std::lock_guard held(state.mutex);
  if (on()) throw std::logic_error("a trace is being recorded already; one process records one at a time");
  state.limit = limit;
  state.budget.store(static_cast<std::int64_t>(limit), std::memory_order_relaxed);
  state.times = {ticks(), 0};
  session_.store(++state.sessions, std::memory_order_relaxed);
}

void stop() noexcept {
  std::lock_guard held(state.mutex);
  if (!on()) return;
  session_.store(0, std::memory_order_relaxed);
  state.times.end = ticks();
}

std::vector<Record> collect() {
  std::lock_guard held(state.mutex);
  std::vector<Record> records;
  for (const Buffer* buffer : state.buffers) {
    if (state.sessions == 0 || buffer->session.load(std::memory_order_acquire) != state.sessions) continue;
    const std::uint32_t size = buffer->size.load(std::memory_order_acquire);
    Record record{.tid = buffer->tid,
                  .name = buffer->name,
                  .worker = buffer->worker,
                  .dropped = buffer->dropped.load(std::memory_order_relaxed),
                  .dropped_at = buffer->dropped_at.load(std::memory_order_relaxed),
                  .spans = {}};
    record.spans.reserve(size);
    for (std::uint32_t i = 0; i < size; ++i) record.spans.push_back(read(buffer->cells[i]));
    if (count_of(buffer->run) > 0) record.spans.push_back(read(buffer->run));
    records.push_back(std::move(record));
  }
  return records;
}

void forget() noexcept {
  std::lock_guard held(state.mutex);
  if (on()) return;
  ++state.sessions;  // nobody's: collect() finds nothing any more
  for (Buffer* buffer : state.buffers) {
    if (buffer->cells != nullptr) madvise(buffer->cells, buffer->capacity * sizeof(Cell), MADV_DONTNEED);
  }
}

Times times() noexcept {
  std::lock_guard held(state.mutex);
  return state.times;
}

void record(ThreadState& self, std::uint32_t session, const Span& span) noexcept {
  if (trace::session() != session) return;
  if (Buffer* buffer = buffer_of(self, session)) append(*buffer, span);
}

void mark(ThreadState& self, Kind kind, std::uintptr_t what, std::uint32_t count) noexcept {
  const std::uint32_t session = trace::session();
  if (session == 0) return;
  const std::uint64_t now = ticks();
  record(self, session, {.begin = now, .end = now, .what = what, .count = count, .width = 0, .kind = kind});
}

void record_region(ThreadState& self, std::uint32_t session, const Span& span) noexcept {
  if (trace::session() != session) return;
  Buffer* buffer = buffer_of(self, session);
  if (buffer == nullptr) return;
  const bool small = span.end - span.begin < buffer->small;
  Cell& run = buffer->run;
  const std::uint64_t about = run.about.load(std::memory_order_relaxed);
  if (small && about != 0 && run.what.load(std::memory_order_relaxed) == span.what && about >> 32 < 0xffffffffu &&
      span.begin - run.end.load(std::memory_order_relaxed) < buffer->apart) {
    run.end.store(span.end, std::memory_order_relaxed);
    run.about.store(about + (std::uint64_t{1} << 32), std::memory_order_relaxed);
    return;
  }
  if (about != 0) flush(*buffer);
  if (small) {
    write(run, span);
  } else {
    append(*buffer, span);
  }
}

void release(Buffer* buffer) noexcept {
  std::lock_guard held(state.mutex);
  buffer->owned = false;
}

void Scope::begin(ThreadState& self, Kind kind, std::uintptr_t what) noexcept {
  kind_ = kind;
  self_ = &self;
  what_ = what;
  begin_ = ticks();
}

void Scope::end() noexcept {
  record(*self_, session_,
         {.begin = begin_,
          .end = ticks(),
          .what = what_,
          .count = 1,
          .width = static_cast<std::uint16_t>(self_->share),
          .kind = kind_});
}

void before_fork() noexcept { state.mutex.lock(); }
void after_fork_in_parent() noexcept { state.mutex.unlock(); }

// The threads that owned the other buffers are the parent's; what they recorded is read there.
void after_fork_in_child() noexcept {
  session_.store(0, std::memory_order_relaxed);
  ++state.sessions;
  Buffer* own = this_thread().trace_buffer;
  for (Buffer* buffer : state.buffers) buffer->owned = buffer == own;
  state.mutex.unlock();
}

}  // namespace composable::trace
