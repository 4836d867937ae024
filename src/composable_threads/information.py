"""``info()``: what the arena is and what it does."""

from __future__ import annotations

import importlib.metadata
from typing import Any

import _composable_threads_boot as boot

from . import _native, spinning

_HOSTS = ("numba", "joblib", "dask", "distributed", "scikit-learn", "numpy", "scipy")


def info() -> dict[str, Any]:
    """Describe the arena.

    Returns
    -------
    dict
        ``slots``: P, the arena's size; ``slots_source``: what set it (``affinity``, ``quota``,
        ``COMPOSABLE_NUM_THREADS`` or ``activate``), from ``affinity`` (CPUs), ``quota`` (CPUs' worth of the cgroup's
        quota, or None), ``variable``. ``started``: whether the arena runs; ``running`` and ``peak_running``: threads
        that compute for it now, and the most so far (`reset_peak`); ``waiting``: threads that need a permit;
        ``replaced``: permits taken from blocked tasks; ``spares``: threads that stand in for workers which wait;
        ``forked``: in a forked child, whose arena runs on spares. ``libraries``: BLAS and OpenMP libraries in the
        process, each with ``kind``, ``path``, ``width`` in the calling thread now, ``scope``, that is, how the width is
        governed: ``process`` (one for all threads), ``thread`` (one in each, set for each task), ``waiting`` (MKL
        before its first call, when it takes its threading layer), ``unknown`` (known by its name only; it is left
        alone) or ``absent`` (not loaded; ``path`` is None); and ``spin_limit``: the variable and value that bound the
        spinning of its idle threads, or None. ``advice``: sentences on what was too late, for a person. ``hosts``:
        versions of installed hosts; ``doors``: which are open, and why others are not; ``tbb``: oneTBB's version and
        path.

    Raises
    ------
    ValueError
        If ``COMPOSABLE_NUM_THREADS`` is not a whole number of at least 1.
    """
    from .activation import is_active, numba_layer_in_use

    found = _native.limits()
    started = _native.started_slots()
    if started is not None:  # the limits may have changed since
        found.update(slots=started, slots_source=_native.started_source())
    libraries = [{**library, "spin_limit": spinning.limit_of(library)} for library in _native.libraries()]
    return {
        **found,
        "started": started is not None,
        **_native.counts(),
        "active": is_active(),
        "hosts": {name: _version(name) for name in _HOSTS},
        "doors": {module: _door(module) for module in boot.HOOKS},
        "numba_layer": numba_layer_in_use(),
        "libraries": libraries,
        "advice": spinning.advice(libraries) if found["slots"] > 1 else [],
        "tbb": {"version": _native.tbb_version(), "path": _libtbb_path()},
    }


def reset_peak() -> None:
    """Start counting ``info()["peak_running"]`` again from what runs now."""
    _native.reset_peak()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _door(module: str) -> str:
    import sys

    if module in boot.failures:
        return f"failed: {boot.failures[module]}"
    if module not in sys.modules:
        return "not imported"
    host = module.partition(".")[0]
    if host in boot.OLDEST and boot.is_too_old(host):
        return f"stock: {host} {boot.version_of(host)} is too old"
    return "open"


def _libtbb_path() -> str | None:
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                if "libtbb.so" in line:
                    return line.split(maxsplit=5)[5].strip()
    except OSError:
        pass
    return None
