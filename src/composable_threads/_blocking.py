"""``blocking()``: a task says that it waits."""

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
