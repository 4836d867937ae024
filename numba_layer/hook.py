"""The one patch of Numba: two module attributes of ``numba.np.ufunc.parallel``.

Numba has no extension point for threading layers: ``_launch_threads`` knows three names and rejects others. It is
looked up as an attribute by every caller, inside and outside that module, at call time, so that rebinding it reaches
them all; ``build_gufunc_kernel`` likewise. Read and tested with Numba 0.60 to 0.68.

Loaded by file, without the package around it, so nothing of ours may be imported at the top.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing would be a cost of every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def execute(run: Callable[[Any], None], install_after: Callable[[Any], None], parallel: Any) -> None:
    """Import the module with ``run``; ``NUMBA_DYLD_WORKAROUND`` launches in the middle of that, before we are there."""
    from os import environ

    value = environ.get("NUMBA_DYLD_WORKAROUND", "0")
    if not value.strip().isdigit() or int(value) == 0:
        run(parallel)
        install_after(parallel)
        return
    environ["NUMBA_DYLD_WORKAROUND"] = "0"
    try:
        run(parallel)
    finally:
        environ["NUMBA_DYLD_WORKAROUND"] = value
    install_after(parallel)
    parallel._launch_threads()


def install(parallel: Any) -> None:
    """Patch the imported module ``numba.np.ufunc.parallel``. Idempotent."""
    if hasattr(parallel, "_composable_threads_init"):
        return
    stock_launch = parallel._launch_threads
    stock_kernel = parallel.build_gufunc_kernel

    from _composable_threads_boot import is_too_old, stands_aside

    def selected() -> bool:
        if is_too_old("numba"):
            return False
        if parallel._is_initialized:
            return bool(parallel._threading_layer == "composable")
        name = str(parallel.config.THREADING_LAYER).lower()
        return name == "composable" or (name == "default" and bool(parallel._composable_threads_active))

    def launch_default() -> None:
        # The stock launch raises at a name it does not know.
        name, parallel.config.THREADING_LAYER = parallel.config.THREADING_LAYER, "default"
        try:
            stock_launch()
        finally:
            parallel.config.THREADING_LAYER = name

    def _launch_threads() -> None:
        if str(parallel.config.THREADING_LAYER).lower() == "composable" and stands_aside("numba"):
            launch_default()
        elif not selected():
            stock_launch()
        elif not parallel._is_initialized:
            from composable_threads.numba_layer.layer import launch

            launch(parallel)

    def build_gufunc_kernel(library: Any, ctx: Any, info: Any, sig: Any, inner_ndim: int) -> Any:
        if not selected():
            return stock_kernel(library, ctx, info, sig, inner_ndim)
        from composable_threads.numba_layer.kernel import build_kernel

        return build_kernel(library, ctx, info, sig, inner_ndim)

    def init() -> None:
        # Functions loaded from Numba's cache do not launch the layer although they use its symbols; stock layers
        # crash there (numba #8578). So it is launched before anything is loaded.
        if selected():
            _launch_threads()

    parallel._launch_threads = _launch_threads
    parallel.build_gufunc_kernel = build_gufunc_kernel
    parallel._composable_threads_init = init
    parallel._composable_threads_active = False


def activate(parallel: Any) -> None:
    """Take over Numba's default layer, not one that the user named."""
    from _composable_threads_boot import stands_aside

    parallel._composable_threads_active = not stands_aside("numba")


def deactivate(parallel: Any) -> None:
    """Leave the default to Numba again, unless the layer has been launched: Numba cannot change it."""
    parallel._composable_threads_active = False
