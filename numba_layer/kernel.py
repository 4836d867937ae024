"""The wrapper around a compiled kernel that hands it to ``numba_parallel_for``.

Numba's own wrapper takes the GIL before every region, even where it is not held, only to give it away at once. With one
busy Python thread in the process each region then waits a switch interval or two (8 ms measured), and nested regions
queue for it. This one gives the GIL away if it is held and does not touch it otherwise.

What it emits calls CPython and ``numba_parallel_for`` only, so that a function cached under this layer runs under any.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.np.ufunc.wrappers import _wrapper_info

# Of ufuncs, whose kernels the core knows by their address: who compiled it, its symbol, its name. For traces.
kernels: deque[tuple[Any, str, str]] = deque(maxlen=10_000)


def build_kernel(library: Any, context: Any, info: Any, signature: Any, inner_ndim: int) -> Any:
    """Same contract as ``numba.np.ufunc.parallel.build_gufunc_kernel``."""
    void, pointer = ir.VoidType(), ir.IntType(8).as_pointer()
    size = context.get_value_type(types.intp)
    kernel_type = ir.FunctionType(void, [pointer.as_pointer(), size.as_pointer(), size.as_pointer(), pointer])

    wrapper_library = context.codegen().create_library("composable_kernel")
    module = wrapper_library.create_ir_module("composable.kernel")
    wrapper_library.add_linking_library(info.library)
    wrapper = ir.Function(module, kernel_type, name=f".kernel.{id(info.env)}_{info.name}")
    builder = ir.IRBuilder(wrapper.append_basic_block("entry"))

    def declare(name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
        return cgutils.get_or_insert_function(module, ir.FunctionType(result, arguments), name)

    gil_check = declare("PyGILState_Check", ir.IntType(32), [])
    save_thread = declare("PyEval_SaveThread", pointer, [])
    restore_thread = declare("PyEval_RestoreThread", void, [pointer])
    get_num_threads = declare("get_num_threads", size, [])
    parallel_for = declare("numba_parallel_for", void, [pointer] * 5 + [size] * 3)
    inner = declare(info.name, void, kernel_type.args)

    state = cgutils.alloca_once(builder, pointer)
    held = builder.icmp_signed("!=", builder.call(gil_check, []), ir.IntType(32)(0))
    with builder.if_then(held):
        builder.store(builder.call(save_thread, []), state)

    returns = not isinstance(signature.return_type, types.NoneType)  # a ufunc's output is one more array
    array_count = len(signature.args) + int(returns)
    pointers = [builder.bitcast(value, pointer) for value in (inner, *wrapper.args)]
    counts = [size(inner_ndim), size(array_count), builder.call(get_num_threads, [])]
    builder.call(parallel_for, pointers + counts)

    with builder.if_then(held):
        builder.call(restore_thread, [builder.load(state)])
    builder.ret_void()

    if "__numba_parfor_" not in info.name:
        kernels.append((context.codegen(), info.name, library.name))
    wrapper_library.add_ir_module(module)
    wrapper_library.add_linking_library(library)
    return _wrapper_info(library=wrapper_library, name=wrapper.name, env=info.env)
