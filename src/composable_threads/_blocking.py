"""``blocking()``: a task says that it waits. ``task()``: a block of the program's own thread says that it is one."""

from __future__ import annotations

from . import _native


class blocking:
    """Context in which a task waits for something outside the arena: I/O, a lock, another task.

    Its permit serves another thread meanwhile; at the end the task may have to wait for a free one. Outside tasks,
    and nested in itself, it does nothing. Do not compute in it: that would be one thread more than the arena's size.
    """

    __slots__ = ("_had",)

    def __enter__(self) -> None:
        self._had = _native.block_begin()

    def __exit__(self, *_: object) -> None:
        _native.block_end(self._had)


def task() -> _native.TaskContext:
    """Context in which a thread of the program computes as a task of the arena.

    It counts among the arena's threads, and its BLAS and OpenMP calls get the width that is their share. In a task, and
    nested in itself, it does nothing. Raises RuntimeError if a context is entered twice or left by another thread.
    """
    return _native.TaskContext()
