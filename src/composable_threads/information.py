"""``info()``: what the arena is, what it does, what else is in the process, and what is amiss."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import sys
from typing import Any

import _composable_threads_boot as boot

from . import _native, spinning
from .library_facts import origin_of, version_of

_HOSTS = ("numba", "joblib", "dask", "distributed", "scikit-learn", "numpy", "scipy", "threadpoolctl")
_MODULES = {"scikit-learn": "sklearn"}  # distribution -> what it is imported as, where that differs

# How the width of a library is governed, by its scope.
_GOVERNED = {
    "process": "one width for the process: set to each task's share whenever the load changes",
    "thread": "a width per thread: set to its share for each task",
    "waiting": "MKL before its first call: left alone until then",
    "unknown": "not known: left alone",
    "absent": "not loaded",
}


class Info(dict[str, Any]):
    """What `info` returns: a dict that prints as a page of text, in a notebook as a table."""

    def __repr__(self) -> str:
        from .information_text import page

        return page(self)

    def _repr_html_(self) -> str:
        from .information_text import html

        return html(self)


def info() -> Info:
    """Describe the arena, the hosts and the libraries around it.

    Returns
    -------
    dict
        It prints as text. ``slots``: P, the arena's size; ``slots_source``: what set it (``affinity``, ``quota``,
        ``COMPOSABLE_NUM_THREADS`` or ``activate``), from ``affinity`` (CPUs), ``quota`` (CPUs' worth of the cgroup's
        quota, or None), ``variable``; ``most``: how many may compute now, fewer than P in a `limit`. ``started``:
        whether the arena runs; ``running`` and ``peak_running``: threads that compute for it now, and the most so far
        (`reset_peak`); ``waiting``: threads that need a permit; ``replaced``: permits taken from blocked tasks;
        ``spares``: threads that stand in for workers which wait; ``forked``: in a forked child, whose arena runs on
        spares. ``libraries``: BLAS and OpenMP libraries in the process, each with ``kind``, ``path``, ``width`` in the
        calling thread now, ``scope``, that is, how the width is governed: ``process`` (one for all threads), ``thread``
        (one in each, set for each task), ``waiting`` (MKL before its first call, when it takes its threading layer),
        ``unknown`` (known by its name only; it is left alone) or ``absent`` (not loaded; ``path`` is None), and
        ``governed``, the same in words; ``spin_limit``: the variable and value that bound the spinning of its idle
        threads, or None; ``version`` and ``origin``, the distribution that brought it, or None where that is not known.
        ``advice``: sentences on what is amiss or was too late, for a person. ``hosts``: versions of installed hosts,
        ``host_paths``: where they are; ``doors``: which are open, and why others are not; ``numba_layer``: what Numba
        launched; ``tbb``: oneTBB's version and path, and ``others``, more copies of it in the process.

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
    libraries = [
        {
            **library,
            "spin_limit": spinning.limit_of(library),
            "governed": _GOVERNED[library["scope"]],
            "version": version_of(library),
            "origin": origin_of(library["path"]),
        }
        for library in _native.libraries()
    ]
    tbb = _libtbb_paths()
    facts = Info(
        **found,
        most=found["slots"] if started is None else _native.most(),
        started=started is not None,
        **_native.counts(),
        active=is_active(),
        hosts={name: _version(name) for name in _HOSTS},
        host_paths={name: _path(name) for name in _HOSTS},
        doors={module: _door(module) for module in boot.HOOKS},
        numba_layer=numba_layer_in_use(),
        libraries=libraries,
        tbb={"version": _native.tbb_version(), "path": tbb[0] if tbb else None, "others": tbb[1:]},
    )
    facts["advice"] = [*_advice(facts), *(spinning.advice(libraries) if found["slots"] > 1 else [])]
    return facts


def _advice(facts: dict[str, Any]) -> list[str]:
    """A sentence for everything that is amiss, apart from spinning."""
    slots, quota = facts["slots"], facts["quota"]
    found = []
    wide = [row for row in facts["libraries"] if row["width"] is not None and row["width"] > slots]
    # By far the commonest cause: a container's quota, of which nothing but the cgroup's files tells.
    if wide and not facts["active"]:
        names = " and ".join(f"{os.path.basename(row['path'])} ({row['width']} threads)" for row in wide)
        cause = f"the quota of {quota:g} CPUs" if quota is not None and math.ceil(quota) <= slots else f"P = {slots}"
        found.append(
            f"{names}: wider than {cause}, which it does not see. Its calls inside tasks get their share; for those "
            "outside use python -m composable_threads or activate(), or set "
            f"{' and '.join(_variables_of(wide))}={slots}."
        )
    variable = facts["variable"]
    if variable is not None and variable > slots and facts["slots_source"] != "activate":
        found.append(
            f"COMPOSABLE_NUM_THREADS={variable} is more than this process may use ({slots}, by "
            f"{facts['slots_source']}); P is {slots}."
        )
    layer = facts["numba_layer"]
    if facts["active"] and layer not in (None, "composable"):
        found.append(
            f"Numba launched its layer {layer!r} before activate(), once per process: its regions do not run on the "
            "arena. Activate before the first parallel function runs, or do not name another layer."
        )
    for module, door in facts["doors"].items():
        if door.startswith(("failed", "stock")):
            found.append(f"{module} keeps its own threads: {door}.")
    if facts["tbb"]["others"]:
        found.append(
            f"More than one libtbb is loaded ({', '.join([facts['tbb']['path'], *facts['tbb']['others']])}): each has "
            "threads of its own, and what uses the others does not run on the arena. Uninstall all but one."
        )
    return found


def _variables_of(libraries: list[dict[str, Any]]) -> list[str]:
    names = {"openblas": "OPENBLAS_NUM_THREADS", "openmp": "OMP_NUM_THREADS", "mkl": "MKL_NUM_THREADS"}
    return list(dict.fromkeys(names[row["kind"]] for row in libraries if row["kind"] in names))


def reset_peak() -> None:
    """Start counting ``info()["peak_running"]`` again from what runs now."""
    _native.reset_peak()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _path(name: str) -> str | None:
    """The folder of an installed host, without importing it."""
    module = _MODULES.get(name, name)
    loaded = sys.modules.get(module)
    try:
        found = getattr(loaded, "__spec__", None) if loaded is not None else importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    origin: str | None = getattr(found, "origin", None)
    if origin is None:
        return None
    return os.path.dirname(origin) if os.path.basename(origin) == "__init__.py" else origin


def _door(module: str) -> str:
    if module in boot.failures:
        return f"failed: {boot.failures[module]}"
    if module not in sys.modules:
        return "not imported"
    host = module.partition(".")[0]
    if host in boot.OLDEST and boot.is_too_old(host):
        return f"stock: {host} {boot.version_of(host)} is too old"
    return "open"


def _libtbb_paths() -> list[str]:
    """The loaded copies of libtbb, ours first: it was loaded first, and there should be no other."""
    from . import _libtbb

    paths: list[str] = []
    try:
        with open("/proc/self/maps") as maps:
            for line in maps:
                if "/libtbb.so" in line:
                    paths.append(os.path.realpath(line.split(maxsplit=5)[5].strip()))
    except OSError:
        return []
    paths = list(dict.fromkeys(paths))
    paths.sort(key=lambda path: path != _libtbb.loaded)
    return paths
