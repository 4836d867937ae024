// A worker as Python's `threading` sees it. With the GIL.
#pragma once

namespace composable {

/// While the calling worker runs tasks: it is in threading.enumerate(), by the name that the kernel has for it, and has the
/// functions that threading.settrace() and threading.setprofile() were given, as a thread that a stock pool started now
/// would have. Afterwards it is gone from there, as are the threads of a pool that was shut down.
class InThreading {
 public:
  InThreading() noexcept;
  ~InThreading();
  InThreading(const InThreading&) = delete;
  InThreading& operator=(const InThreading&) = delete;

 private:
  bool entered_ = false;
};

/// Before the calling worker ends.
void leave_threading() noexcept;

/// A child that is forked in a task has a main thread in `threading`, not a worker.
void register_threading();

}  // namespace composable
