// Whether Ctrl-C has come, asked without the GIL.
//
// The interpreter's own handler only makes a note, which nobody can read without the GIL; and a region must not wait for
// that, since a thread may keep it for long. So a handler of ours stands before the interpreter's, makes a note of its own
// and calls that. Where something else than the interpreter handles SIGINT it is left alone.
#pragma once

namespace composable {

/// Puts the handler in its place, also again after signal.signal(), which takes it away. Any thread, no GIL.
void watch_interrupts() noexcept;

/// Whether SIGINT came since the last call.
bool take_interrupt() noexcept;

}  // namespace composable
