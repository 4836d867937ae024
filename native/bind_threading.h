// A worker as Python's `threading` sees it. With the GIL.
#pragma once

namespace composable {

/// Before the calling worker runs tasks: its thread in `threading` is named as the kernel names it, and has the functions
/// that threading.settrace() and threading.setprofile() were given, as a thread that a stock pool started now would have.
///
/// Asked again and again, because a worker outlives the pools it works for: what was set, or taken back, meanwhile counts
/// from the next time on that it takes work.
void enter_threading() noexcept;

/// Before the calling worker ends: `threading` forgets it, for the kernel may give its ident to another thread.
void leave_threading() noexcept;

}  // namespace composable
