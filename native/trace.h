// What ran where and when: one append-only buffer of spans per thread, read by whoever started the recording.
//
// Off, it costs one relaxed load per region, task and node. On, a span is two looks at the clock and 32 bytes written by the
// thread that it happened on; no lock, no shared cache line but the budget's, which is asked once in a thousand spans.
//
// State:
//   session_   number of the recording that is on; 0: none. Atomic, read by everyone
//   buffers    one per thread that ever recorded, under a mutex; its content belongs to one session
//   budget     spans that may still be recorded in this session, over all threads; atomic
//
// A thread appends only if the session is the one in which its span began, and empties its buffer itself when it first
// meets a new one. So a late writer, which looked at `session_` just before it changed, writes into a buffer that nobody
// reads any more, at an address that stays mapped: when a recording is forgotten the pages go back to the kernel, not
// the addresses.
//
// Small regions that follow each other on a thread are one span with a count: a loop of a million of them fills no memory.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace composable {

struct ThreadState;

namespace trace {

enum class Kind : std::uint8_t {
  task,    // a Python callable
  node,    // a node of a graph
  region,  // a region, on its caller
  runner,  // a thread's part in somebody else's region
  wait,    // in the middle of one of these: it computes nothing
  width,   // a moment: BLAS calls of the process use `count` threads from now on
  taken,   // a moment: the thread slept in a task and lost its permit
};

/// What a thread waits for: `what` of a wait.
enum class For : std::uintptr_t { permit, tasks, runners, outside };

/// One span, or one moment, whose begin is its end.
struct Span {
  std::uint64_t begin, end;  // ticks
  std::uintptr_t what;       // a label's address (task, node), a body's number (regions), For (waits)
  std::uint32_t count;       // regions in the span; a width
  std::uint16_t width;       // of BLAS calls on this thread at its end
  Kind kind;
};

/// The spans of one thread, in the order in which they ended.
struct Record {
  pid_t tid;
  std::string name;
  bool worker;
  std::uint64_t dropped;     // for want of memory ...
  std::uint64_t dropped_at;  // ... from this tick on
  std::vector<Span> spans;
};

struct Buffer;

extern std::atomic<std::uint32_t> session_;

/// The recording that is on, or 0.
inline std::uint32_t session() noexcept { return session_.load(std::memory_order_relaxed); }
inline bool on() noexcept { return session() != 0; }

/// Begins a recording of at most `limit` spans. Throws std::logic_error while another is on.
void start(std::size_t limit);
void stop() noexcept;
/// What the last recording has until now; threads that go on recording are not disturbed.
std::vector<Record> collect();
/// Gives the memory of the last recording, which is over, back.
void forget() noexcept;
/// Ticks at which the last recording began and ended; `end` is 0 while it is on.
struct Times {
  std::uint64_t begin, end;
};
Times times() noexcept;

/// Appends a span of this thread's that began in `session`; nothing if that is over.
void record(ThreadState& self, std::uint32_t session, const Span& span) noexcept;
/// Appends a moment of this thread's, if a recording is on.
void mark(ThreadState& self, Kind kind, std::uintptr_t what, std::uint32_t count) noexcept;
/// The same as record() for a region; one that is small is added to the small ones just before it.
void record_region(ThreadState& self, std::uint32_t session, const Span& span) noexcept;

/// The calling thread ends; its buffer is another's from the next recording on.
void release(Buffer* buffer) noexcept;

void before_fork() noexcept;
void after_fork_in_parent() noexcept;
/// Nothing is recorded in the child until it starts a recording of its own.
void after_fork_in_child() noexcept;

/// Records from its construction to its end, if a recording is on at both.
class Scope {
 public:
  Scope(ThreadState& self, Kind kind, std::uintptr_t what) noexcept : session_(trace::session()) {
    if (session_ != 0) [[unlikely]]
      begin(self, kind, what);
  }
  /// What it is was not known at first.
  void rename(std::uintptr_t what) noexcept { what_ = what; }
  ~Scope() {
    if (session_ != 0) [[unlikely]]
      end();
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  void begin(ThreadState& self, Kind kind, std::uintptr_t what) noexcept;
  void end() noexcept;

  const std::uint32_t session_;
  Kind kind_;
  ThreadState* self_;
  std::uintptr_t what_;
  std::uint64_t begin_;
};

}  // namespace trace
}  // namespace composable
