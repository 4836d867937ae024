"""The end of a parfor that was cancelled: by an error of its body, or by Ctrl-C.

Numba's own code goes on after the region whatever happened in it. The error stands in the thread's state by then, so
the function ends with ``SystemError: ... returned a result with an exception set``, or the error is lost on the call
that compiles (numba #2811, #7350, #9673). Here the function returns at once and raises the error itself.

The layer marks a cancelled region by a null in the place of its first argument, the schedule, which Numba reads no more
after the region. No stock layer ever does that, so a function cached under this layer runs under any.
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Any

from llvmlite import ir
from numba.core import cgutils


def install(parallel: ModuleType) -> None:
    """Rebind ``numba.parfors.parfor_lowering.call_parallel_gufunc``, once; `parallel`: ``numba.np.ufunc.parallel``."""
    from numba.parfors import parfor_lowering

    stock: Any = parfor_lowering.call_parallel_gufunc
    if hasattr(stock, "_composable_threads"):
        return

    @functools.wraps(stock)
    def call_parallel_gufunc(lowerer: Any, *args: Any, **kwargs: Any) -> None:
        stock(lowerer, *args, **kwargs)
        if parallel._threading_layer == "composable":
            _return_if_cancelled(lowerer)

    call_parallel_gufunc._composable_threads = True  # type: ignore[attr-defined]
    parfor_lowering.call_parallel_gufunc = call_parallel_gufunc


def _return_if_cancelled(lowerer: Any) -> None:
    builder = lowerer.builder
    arguments = _arguments_of_kernel(builder.block)
    if arguments is None:
        return
    cancelled = cgutils.is_null(builder, builder.load(arguments))
    with cgutils.if_unlikely(builder, cancelled):
        lowerer.context.call_conv.return_exc(builder)


def _arguments_of_kernel(block: ir.Block) -> ir.Value | None:
    """What the newest call of a gufunc kernel in `block` was given: pointers to data, first that to the schedule."""
    pointers = ir.IntType(8).as_pointer().as_pointer()
    for instruction in reversed(block.instructions):
        if isinstance(instruction, ir.CallInstr):
            given = list(instruction.args)
            if len(given) == 4 and given[0].type == pointers and isinstance(instruction.type, ir.VoidType):
                return given[0]
    return None
