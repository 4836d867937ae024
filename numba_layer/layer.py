"""Puts the arena in the place of Numba's threading layers."""

from __future__ import annotations

from typing import Any

try:
    import llvmlite.binding as llvm
except ImportError as error:
    raise ImportError("Numba is missing; install it with: pip install 'composable-threads[numba]'") from error

from .. import _native
from .._fork_lock import ForkLock
from .._native import numba as abi
from . import parfor

_LAUNCH_SYMBOLS = {
    "numba_parallel_for": abi.parallel_for,
    "do_scheduling_signed": abi.do_scheduling_signed,
    "do_scheduling_unsigned": abi.do_scheduling_unsigned,
    "allocate_sched": abi.allocate_sched,
    "deallocate_sched": abi.deallocate_sched,
}
_lock = ForkLock()


def launch(parallel: Any) -> None:
    """Register the layer with ``numba.np.ufunc.parallel``; no thread is started before the first region.

    The same steps as Numba's own ``_launch_threads``, without the lock between processes that OpenMP needs.
    """
    from ctypes import CFUNCTYPE, c_int

    _native.limits()  # a bad COMPOSABLE_NUM_THREADS is a ValueError here; compiled code could not raise it
    with _lock:
        if parallel._is_initialized:
            return
        for name, address in _LAUNCH_SYMBOLS.items():
            llvm.add_symbol(name, address)
        parfor.install(parallel)
        CFUNCTYPE(None, c_int)(abi.launch_threads)(parallel.NUM_THREADS)
        parallel._load_threading_functions(abi)
        parallel._threading_layer = "composable"
        parallel._is_initialized = True
