"""What the native module offers to this package; nothing here is public."""

from array import array
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeAlias

# A contiguous buffer of one dimension (array.array, bytes, bytearray, memoryview), or any sequence.
_Integers: TypeAlias = array[int] | bytes | bytearray | memoryview | Sequence[int]

class TaskGroup:
    """The tasks of one call, executor or graph, in order of submission; at most `limit` at once.

    A callable that is submitted for several runs is called as often, each time as a task; where it returns False
    nothing is left for it to do, and the runs it is still queued for are dropped.
    """

    limit: int
    def __init__(self, limit: int) -> None: ...
    def submit(self, callable: Callable[[], object], runs: int = 1) -> None: ...
    def withdraw(self, callable: Callable[[], object]) -> None:
        """Drop the runs for which exactly this object is queued."""
    def help(self, check: Callable[[], bool] | None = None, run: bool = True, timeout: float | None = None) -> bool:
        """Wait until the group is idle (True), `check` is true or `timeout` seconds passed (False).

        `check` is asked at first and after every nudge(); without `run` also when tasks ended. With `run` the calling
        thread runs the group's tasks meanwhile. Raises KeyboardInterrupt in the main thread.
        """
    def drop_queued(self, each: Callable[[Any], object] | None = None) -> None: ...
    def nudge(self) -> None: ...
    def settle_load(self, goes_on: bool = True) -> bool:
        """From the first call on what widths count of this group falls only here, a call later than its tasks did.

        True as long as it counts anything; without `goes_on` it falls at once again.
        """
    @property
    def queued(self) -> int: ...
    @property
    def active(self) -> int: ...

class NodeTypes:
    """Dask's classes, by which nodes of a graph are recognised."""

    def __init__(
        self,
        *,
        graph_node: type,
        data_node: type,
        task: type,
        task_ref: type,
        alias: type,
        execute_subgraph: Callable[..., Any] | None,
        plain_dependencies: bool,
    ) -> None: ...

class Computation:
    """One computation of `wanted` keys of a graph of Dask's nodes; at most `limit` nodes run at once.

    Raises CycleError if the graph has a cycle.
    """

    def __init__(
        self,
        types: NodeTypes,
        graph: dict[Any, Any],
        wanted: Iterable[Any],
        limit: int,
    ) -> None: ...
    def compute(self) -> dict[Any, Any]:
        """Run once; the wanted values by key, without keys that are not there. Raises the first error of a node.

        Raises ValueError if something needed is missing.
        """

class TaskContext:
    """A block of the program's own thread that counts as a task."""

    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...

class WidthLimit:
    """A block of the calling thread's task whose BLAS and OpenMP calls use at most `count` threads."""

    def __init__(self, count: int) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...

class CycleError(RuntimeError):
    """The graph given to order() has a cycle; dask.core.getcycle tells which."""

def is_converted(types: NodeTypes, graph: Any) -> bool:
    """Whether a graph is a dict of Dask's nodes already, none of them an alias."""

def order(
    offsets: _Integers,
    targets: _Integers,
    is_task: _Integers,
    keys: Sequence[Hashable] | Callable[[int], str],
) -> list[int]:
    """Dask's static order of nodes 0..n-1: the priority of each, lowest first. native/order.h has the contract.

    Node i depends on targets[offsets[i]:offsets[i + 1]]; numbers from n on are external keys. `is_task` is true where
    dask.core.istask is. `keys` has the key of every node and external key, or is called with a number and returns
    str(key): for few nodes, each once at most. Raises CycleError; ValueError and TypeError for a malformed graph, and
    what `keys` raises.
    """

class UserLimits:
    """A limit that the user sets in the libraries: made before, begun after they are set, ended when set back."""

    def begin(self, counts: dict[str, int]) -> None: ...
    def end(self) -> None: ...

def libraries() -> list[dict[str, Any]]: ...
def cap_widths(on: bool) -> None: ...
def cap_thread_widths() -> None: ...
def impose_widths(widths: dict[str, int]) -> None:
    """Widths by kind of library that no user chose, so they are no bound in tasks; replaces those before.

    Raises ValueError for a kind that `libraries` does not know and for a width below 1.
    """

def configure(slots: int) -> None: ...
def slots() -> int: ...
def planned_slots() -> int:
    """P, as it is or would be if the arena were made now."""

def started_slots() -> int | None: ...
def started_source() -> str | None: ...
def limits() -> dict[str, Any]: ...
def counts() -> dict[str, Any]: ...
def reset_peak() -> None: ...
def most() -> int:
    """How many threads may compute now: P, or fewer while a limit lives."""

def base() -> int:
    """What stands while no ArenaLimit lives: P, or what set_base() said."""

def set_base(count: int) -> None: ...
def thread_limit() -> int:
    """The calling thread's limit, 0 without one."""

def set_thread_limit(count: int) -> int:
    """Sets it, 0 for none; returns what it was."""

class ArenaLimit:
    """A block in which at most `count` threads compute for the arena."""

    def __init__(self, count: int) -> None: ...
    def __enter__(self) -> None: ...
    def __exit__(self, *args: object) -> None: ...

def tbb_version() -> str: ...
def holds_permit() -> bool: ...
def task_depth() -> int: ...
def deepen() -> int:
    """How deep in tasks that wait for tasks what the calling thread is about to wait for will be.

    Raises RecursionError if that is beyond ``sys.getrecursionlimit()``.
    """

def nest(nesting: int) -> None:
    """So deep is the task that the calling thread runs, until its end."""

def block_begin() -> bool: ...
def block_end(had: bool) -> None: ...
def trace_start(limit: int) -> None: ...
def trace_stop() -> None: ...
def trace_on() -> bool: ...
def trace_label(callable: object) -> None:
    """What the calling thread's task turned out to run, for the trace that is on."""

def trace_collect() -> dict[str, Any]:
    """Spans of the last trace, per thread as bytes of four 64-bit words each: begin and end in ns, what, and kind,
    width and count in its lowest 8, next 16 and highest 32 bits; labels by address; libraries; runnable threads by the
    kernel's account.
    """

def trace_forget() -> None: ...

class numba:
    """Addresses of the functions that Numba's generated code calls; a submodule."""

    launch_threads: int
    synchronize: int
    ready: int
    add_task: int
    parallel_for: int
    do_scheduling_signed: int
    do_scheduling_unsigned: int
    set_num_threads: int
    get_num_threads: int
    get_thread_id: int
    set_parallel_chunksize: int
    get_parallel_chunksize: int
    get_sched_size: int
    allocate_sched: int
    deallocate_sched: int
    @staticmethod
    def set_deterministic(on: bool) -> None: ...
    @staticmethod
    def deterministic() -> bool: ...
