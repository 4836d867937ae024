"""Names of what ran: of tasks from what the native module kept of them, of regions from Numba's compiled functions."""

from __future__ import annotations

import bisect
import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any

_MOST = 120  # characters of a name

# A region is known by an address in the function that called it; one that is so far behind the nearest function's entry
# belongs to something else.
_FARTHEST = 1 << 20


def name_of_label(label: Any) -> str:
    """A task's or node's name; `label` is a code object, text, a type or a key of a Dask graph."""
    if isinstance(label, CodeType):
        text = getattr(label, "co_qualname", label.co_name)
        if label.co_name == "<lambda>":
            text += f" ({label.co_filename.rpartition('/')[2]}:{label.co_firstlineno})"
    elif isinstance(label, type):
        text = label.__qualname__
    else:
        text = str(label)
    return text if len(text) <= _MOST else text[: _MOST - 3] + "..."


def names_of_regions(numbers: Iterable[int]) -> dict[int, str]:
    """The Numba function in which each region is, by the number that the core gives it; 0 is one of nobody's."""
    wanted = set(numbers)
    names = dict.fromkeys(wanted, "region")
    if not (wanted - {0}) or "numba.core.dispatcher" not in sys.modules:
        return names
    exact, entries = _numba_functions()
    starts = [start for start, _ in entries]
    for number in wanted - {0}:
        if number in exact:
            names[number] = exact[number]
            continue
        place = bisect.bisect_right(starts, number) - 1
        if place >= 0 and number - starts[place] < _FARTHEST:
            names[number] = entries[place][1]
    return names


def _numba_functions() -> tuple[dict[int, str], list[tuple[int, str]]]:
    """Address -> name of the kernels of parallel ufuncs; entries of all other compiled functions, in order."""
    import gc

    from numba.core.dispatcher import Dispatcher

    entries: list[tuple[int, str]] = []
    for found in gc.get_objects():
        if Dispatcher not in type(found).__mro__:  # isinstance() would ask what a dead proxy stood for
            continue
        name = getattr(found.py_func, "__qualname__", "?")
        for compiled in list(found.overloads.values()):
            try:
                start = compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)
            except Exception:  # one without code of its own
                continue
            if start:
                entries.append((start, name))
    exact: dict[int, str] = {}
    kernels = getattr(sys.modules.get("composable_threads.numba_layer.kernel"), "kernels", ())
    for codegen, symbol, name in list(kernels):
        try:
            start = codegen._engine.get_function_address(symbol)
        except Exception:  # gone, or not linked yet
            continue
        if start:
            exact[start] = name
    return exact, sorted(entries)
