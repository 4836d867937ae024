"""The one patch of Joblib: the name ``composable`` in its registry of backends, and the arena among what it sizes.

Joblib tells the processes of its loky backend by variables how many threads each library may have there, the cores
divided by the number of processes; the arena of such a process is sized likewise. Joblib has no entry points, and its
table of external backends is not asked by ``Parallel(backend=...)``. Read and tested with Joblib 1.4 to 1.6.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would be a cost of every start
if TYPE_CHECKING:
    from typing import Any


def install(parallel: Any) -> None:
    """Register with the imported module ``joblib.parallel``. Idempotent."""

    def composable(**options: Any) -> Any:
        from composable_threads.joblib_backend import ComposableBackend

        return ComposableBackend(**options)

    parallel.BACKENDS.setdefault("composable", composable)
    sized = getattr(parallel.ParallelBackendBase, "MAX_NUM_THREADS_VARS", None)
    if sized is not None and "COMPOSABLE_NUM_THREADS" not in sized:
        sized.append("COMPOSABLE_NUM_THREADS")


def activate(parallel: Any) -> None:
    """Take over Joblib's default backend and its "threading"; a backend of processes that is named stays."""
    from _composable_threads_boot import stands_aside

    parallel._composable_threads_stock = parallel.DEFAULT_BACKEND, parallel.BACKENDS["threading"]
    if stands_aside("joblib"):
        return

    def threading(**options: Any) -> Any:
        from composable_threads.joblib_backend import ActivatedBackend

        return ActivatedBackend(**options)

    _keep_processes(parallel)
    parallel.BACKENDS["threading"] = threading
    parallel.DEFAULT_BACKEND = "threading"


def _keep_processes(parallel: Any) -> None:
    # Before 1.5 Joblib knows no `prefer="processes"` where the default backend runs threads, which it does not without
    # us.
    if hasattr(parallel, "DEFAULT_PROCESS_BACKEND"):
        return
    stock = parallel._composable_threads_stock_choice = parallel._get_active_backend
    default, processes = parallel.default_parallel_config, parallel._composable_threads_stock[0]

    def _get_active_backend(
        prefer: Any = default["prefer"], require: Any = default["require"], verbose: Any = default["verbose"]
    ) -> Any:
        backend, config = stock(prefer, require, verbose)
        named = parallel._get_config_param(default["backend"], config, "backend")
        wish = parallel._get_config_param(prefer, config, "prefer")
        if named is not None or wish != "processes" or not getattr(backend, "uses_threads", False):
            return backend, config
        return parallel.BACKENDS[processes](nesting_level=backend.nesting_level), config.copy()

    parallel._get_active_backend = _get_active_backend


def deactivate(parallel: Any) -> None:
    """Give both back."""
    if hasattr(parallel, "_composable_threads_stock_choice"):
        parallel._get_active_backend = parallel._composable_threads_stock_choice
        del parallel._composable_threads_stock_choice
    parallel.DEFAULT_BACKEND, parallel.BACKENDS["threading"] = parallel._composable_threads_stock
    del parallel._composable_threads_stock
