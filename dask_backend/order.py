"""Dask's static order, computed natively: in place of ``dask.order.order``, at a tenth of its time or less.

Read with Dask 2026.8. Dask computes the same since 2025.5; older ones choose their targets in another way.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from dask._task_spec import DataNode, GraphNode
from dask.core import get_dependencies, istask
from dask.order import order as stock_order

from .. import _native


def order(
    dsk: Mapping[Any, Any], dependencies: Mapping[Any, Any] | None = None, *, return_stats: bool = False
) -> dict[Any, Any]:
    """The priority of every key of a Dask graph, lowest first; a drop-in for ``dask.order.order``.

    Where Dask's answer hangs on the hashes of the keys, this one takes keys in the order of the graph; otherwise it is
    the same.

    Parameters
    ----------
    dsk : Mapping
        The graph; tasks of either specification.
    dependencies : Mapping, optional
        Not used, by Dask either.
    return_stats : bool
        Return what ``dask.order.order(dsk, return_stats=True)`` returns: computed by Dask, for drawings.

    Raises
    ------
    RuntimeError
        The graph has a cycle; in Dask's words.

    Examples
    --------
    >>> from operator import add
    >>> from composable_threads.dask_backend.order import order
    >>> order({"a": 1, "b": (add, "a", 2), "c": (add, "a", "b")})
    {'a': 0, 'b': 1, 'c': 2}
    """
    if return_stats:
        return stock_order(dsk, return_stats=True)
    index = {key: number for number, key in enumerate(dsk)}
    number_of = index.__getitem__
    offsets, targets, is_task = array("i", [0]), array("i"), bytearray()
    for node in dsk.values():
        if isinstance(node, GraphNode):
            found: Any = node.dependencies
            is_task.append(not isinstance(node, DataNode))
        else:
            found = get_dependencies(dsk, task=node)
            is_task.append(bool(istask(node)))
        try:
            targets.extend(map(number_of, found))
        except KeyError:  # an external key; the numbers before it are in place already
            del targets[offsets[-1] :]
            targets.extend([index.setdefault(key, len(index)) for key in found])
        offsets.append(len(targets))
    try:
        priorities = _native.order(offsets, targets, is_task, list(index))
    except _native.CycleError:
        stock_order(dsk)  # knows how to tell which
        raise
    return dict(zip(dsk, priorities, strict=True))
