"""A Dask scheduler whose tasks run in the arena.

The graph becomes integers once; the native module counts dependencies, keeps the stack of ready tasks and releases
results. The order is Dask's, so its peak memory is. What needs Dask's own loop takes the exact path (``exact.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask
from dask import _task_spec as spec
from dask.callbacks import Callback
from dask.core import flatten
from dask.local import nested_get
from dask.order import order
from dask.threaded import get as threaded_get

from .. import _native
from .._blocking import MOST_AT_ONCE
from ..executor import check_workers
from .exact import get_exactly


def _is_plain(dependencies: Any) -> bool:
    """Whether the property returns its slot and does nothing else, so that the slot may be read instead."""
    code = getattr(getattr(dependencies, "fget", None), "__code__", None)
    return code is not None and code.co_names == ("_dependencies",)


_NODE_TYPES = _native.NodeTypes(
    graph_node=spec.GraphNode,
    data_node=spec.DataNode,
    task=spec.Task,
    task_ref=spec.TaskRef,
    alias=spec.Alias,
    execute_subgraph=getattr(spec, "_execute_subgraph", None),
    plain_dependencies=_is_plain(spec.Task.dependencies),
)
# Arguments, or settings of Dask's, that change what its loop does.
_EXACT_ARGUMENTS = frozenset(["dumps", "get_id", "loads", "pack_exception", "raise_exception"])
_SETTINGS = ("cache", "rerun_exceptions_locally", "chunksize")


def get(
    dsk: Any,
    keys: Any,
    cache: Any = None,
    num_workers: int | None = None,
    pool: Any = None,
    **kwargs: Any,
) -> Any:
    """Compute `keys` of a Dask graph in the arena; a drop-in for ``dask.threaded.get``.

    Parameters
    ----------
    dsk : Mapping or anything with ``__dask_graph__``
        The graph.
    keys : key or (nested) list of keys
        What to compute; lists come back as tuples of the same shape.
    cache : MutableMapping, optional
        Kept by the caller: results are stored in it, and keys found in it count as done.
    num_workers : int, optional
        At most so many tasks of this graph at once; default, also through Dask's config: the arena's size.
    pool : concurrent.futures.Executor or multiprocessing pool, optional
        Use this pool instead of the arena, as ``dask.threaded.get`` does.
    **kwargs
        As for ``dask.local.get_async``; unknown ones are ignored.

    Raises
    ------
    ValueError
        If a task depends on a key that is not there, or `num_workers` is below 1.
    RuntimeError
        If the graph has a cycle.
    TypeError
        If `dsk` is no graph, or `num_workers` no whole number.
    KeyError
        If one of `keys` is not in the graph.

    Examples
    --------
    >>> from operator import add
    >>> from composable_threads.dask_backend import get
    >>> get({"a": 1, "b": (add, "a", 2), "c": (add, "a", "b")}, ["b", "c"])
    (3, 4)

    For collections it goes by its name:

    >>> import dask
    >>> dask.delayed(add)(1, 2).compute(scheduler="composable")
    3
    """
    pool = pool or dask.config.get("pool", None)
    num_workers = num_workers or dask.config.get("num_workers", None)
    if pool is not None:
        return threaded_get(dsk, keys, cache=cache, num_workers=num_workers, pool=pool, **kwargs)
    num_workers = min(check_workers(num_workers, "num_workers") or 1, MOST_AT_ONCE) if num_workers else _native.slots()
    options = {"cache": cache, **kwargs}
    if _needs_exact_path(options):
        return get_exactly(dsk, keys, num_workers=num_workers, **options)

    if not isinstance(dsk, Mapping):
        if not hasattr(dsk, "__dask_graph__"):
            raise TypeError(f"a graph is a Mapping or has __dask_graph__, not {type(dsk).__name__!r}")
        dsk = dsk.__dask_graph__()
    if not _native.is_converted(_NODE_TYPES, dsk):
        dsk = spec.convert_legacy_graph(dsk)
    wanted = set(flatten(keys)) if isinstance(keys, list) else {keys}
    try:
        computation = _native.Computation(_NODE_TYPES, dsk, wanted, num_workers)
    except _native.CycleError:
        order(dsk)  # Dask's tells which
        raise
    return nested_get(keys, computation.compute())


def _needs_exact_path(options: Mapping[str, Any]) -> bool:
    if Callback.active or options.get("callbacks") or not _EXACT_ARGUMENTS.isdisjoint(options):
        return True
    cache, rerun, chunksize = (
        dask.config.get(name, None) if options.get(name) is None else options[name] for name in _SETTINGS
    )
    return cache is not None or bool(rerun) or chunksize not in (None, 0, 1)
