"""What only the native path of the Dask scheduler does: nodes evaluated without Dask's frames, fused ones by a plan."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
import weakref

import dask
import pytest
from composable_threads.dask_backend import get, scheduler
from dask import _task_spec as spec
from dask._task_spec import Alias, DataNode, List, Task, TaskRef
from fresh import check_fresh


def add(*values, **named):
    return sum(values) + sum(named.values())


def both(graph, keys, **options):
    """The arena's answer, which must be that of Dask's own loop."""
    ours = get(graph, keys, num_workers=2, **options)
    assert ours == dask.local.get_sync(graph, keys)
    return ours


@pytest.fixture(autouse=True)
def native_path_only(monkeypatch):
    def exact(*_args, **_options):
        raise AssertionError("took the exact path")

    monkeypatch.setattr(scheduler, "get_exactly", exact)


def test_every_kind_of_node_is_evaluated_as_dask_does():
    graph = {
        "data": DataNode("data", 5),
        "alias": Alias("alias", "data"),
        "task": Task("task", add, TaskRef("data"), 2, extra=TaskRef("alias")),
        "inner": Task("inner", add, Task(None, add, TaskRef("task"), 1), named=Task(None, add, TaskRef("data"))),
        "list": List(TaskRef("task"), 7, [1, 2], List(TaskRef("data"))),
        "dict": spec.Dict({"a": TaskRef("task"), "b": List(TaskRef("alias"))}),
        "tuple": spec.Tuple(TaskRef("task"), TaskRef("inner")),
        "set": spec.Set(TaskRef("task"), 3),
    }
    answer = both(graph, list(graph))
    assert answer == (5, 5, 12, 18, [12, 7, [1, 2], [5]], {"a": 12, "b": [5]}, (12, 18), {12, 3})


def test_a_subclass_of_task_that_is_called_in_its_own_way_is_called():
    class Doubled(Task):
        __slots__ = ()

        def __call__(self, values=()):
            return 2 * super().__call__(values)

    graph = {
        "a": Task("a", add, 1),
        "b": Doubled("b", add, TaskRef("a"), 2),
        "c": List(TaskRef("b"), Doubled(None, add, 3)),
    }
    assert both(graph, ["b", "c"]) == (6, [6, 6])


@pytest.mark.parametrize("count", [2, 40])
def test_a_key_may_be_equal_to_another_one_without_being_it(count):
    def key(number):
        return ("x", float(number))  # a new object each time; an int of that value is the same key

    graph = {("x", number): Task(("x", number), add, number) for number in range(count)}
    graph["sum"] = Task("sum", add, *(TaskRef(key(i)) for i in range(count)), *(TaskRef(key(i)) for i in range(count)))
    graph["list"] = List(*(TaskRef(key(i)) for i in range(count)), TaskRef(key(1)))
    assert both(graph, ["sum", "list"]) == (count * (count - 1), [*range(count), 1])


@pytest.mark.parametrize("place", [0, 15, 16, 17, 39])
def test_one_node_to_convert_among_many_is_found(place):
    graph = {number: Task(number, add, number) for number in range(40)}
    graph[place] = (add, 100, (place + 1) % 40)
    assert both(graph, place) == 100 + (place + 1) % 40


def test_keys_of_one_hash_are_told_apart():
    assert hash(("x", -1)) == hash(("x", -2))
    graph = {("x", number): Task(("x", number), add, number) for number in (-1, -2)}
    graph["difference"] = Task("difference", int.__sub__, TaskRef(("x", -1)), TaskRef(("x", -2)))
    assert both(graph, "difference") == 1


def test_dependencies_of_a_subclass_are_what_it_says_they_are():
    class More(Task):
        __slots__ = ()

        @property
        def dependencies(self):
            return {("b", len(self.args)), *super().dependencies}  # a set of its own each time

        def __call__(self, values=()):
            assert type(values) is dict
            return sorted(values.items(), key=str)

    graph = {"a": Task("a", add, 1), ("b", 1): Task(("b", 1), add, 2), "c": More("c", add, TaskRef("a"))}
    assert both(graph, "c") == [("a", 1), (("b", 1), 2)]


def test_a_reference_that_is_no_dependency_is_not_found():
    class Fewer(Task):
        __slots__ = ()

        @property
        def dependencies(self):
            return frozenset()

    graph = {"a": Task("a", add, 1), "b": Fewer("b", add, TaskRef("a"))}
    for run in (get, dask.local.get_sync):
        with pytest.raises(KeyError, match="a"):
            run(graph, ["a", "b"])


def test_a_slot_that_was_emptied_is_told_by_its_name():
    task = Task("a", add, 1)
    del task.args
    for run in (get, dask.local.get_sync):
        with pytest.raises(AttributeError, match="args"):
            run({"a": task}, "a")


def test_errors_of_keys_are_told():
    class Key(str):
        __slots__ = ()

        def __eq__(self, other):
            raise ArithmeticError("no comparison")

        __hash__ = str.__hash__

    graph = {Key("a"): Task("a", add, 1), "b": Task("b", add, TaskRef(Key("a")))}
    with pytest.raises(ArithmeticError, match="no comparison"):
        get(graph, "b")


def fused(*tasks, key=None):
    made = spec.GraphNode.fuse(*tasks, key=key)
    assert made.func is spec._execute_subgraph
    return made


def test_fused_nodes_run_by_a_plan_and_are_not_ordered_again(monkeypatch):
    chain = fused(
        Task("a", add, TaskRef("x"), 1), Task("b", add, TaskRef("a"), 1), Task("c", add, TaskRef("b"), TaskRef("y"))
    )
    diamond = fused(
        Task("p", add, TaskRef("c"), 1),
        Task("q", add, TaskRef("p"), 1),
        Task("r", add, TaskRef("p"), 2),
        DataNode("s", 100),
        Task("t", add, TaskRef("q"), TaskRef("r"), TaskRef("s")),
    )
    nested = fused(chain, Task("d", add, TaskRef("c"), TaskRef("c")), key="nested")
    graph = {"x": DataNode("x", 1), "y": Task("y", add, 10), "c": chain, "t": diamond, "nested": nested}
    expected = dask.local.get_sync(graph, ["c", "t", "nested"])
    assert expected == (13, 131, 26)

    calls = []
    monkeypatch.setattr(sys.modules["dask.order"], "order", lambda *_args, **_options: calls.append(1))
    assert get(graph, ["c", "t", "nested"]) == expected
    assert calls == []


def test_a_fused_node_renamed_and_given_other_inputs_is_right():
    inner = fused(Task("a", add, TaskRef("x"), 1), Task("b", add, TaskRef("a"), TaskRef("y")))
    graph = {
        "x2": Task("x2", add, 5),
        "y2": DataNode("y2", 7),
        "z": inner.substitute({"x": "x2", "y": "y2"}, key="z"),
        "w": fused(Alias("x", "x2"), Task("b", add, TaskRef("x"), 1), key="w"),
    }
    assert both(graph, ["z", "w"]) == (13, 6)


class Counted:
    alive = most = 0

    def __init__(self, *_):
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self):
        Counted.alive -= 1


def test_values_inside_a_fused_node_are_forgotten_after_their_last_use():
    names = [f"k{i}" for i in range(20)]
    tasks = [Task(names[0], Counted), *(Task(names[i], Counted, TaskRef(names[i - 1])) for i in range(1, 20))]
    Counted.alive = Counted.most = 0
    get({"k19": fused(*tasks)}, "k19", num_workers=1)
    assert Counted.most == 2


@pytest.mark.parametrize("where", ["plain", "fused", "inner"])
def test_errors_name_the_users_frames(where):
    def fails(*_):
        raise LookupError("told")

    node = {
        "plain": Task("x", fails),
        "fused": fused(Task("a", add, 1), Task("x", fails, TaskRef("a"))),
        "inner": Task("x", add, Task(None, fails)),
    }[where]
    with pytest.raises(LookupError, match="told") as caught:
        get({"x": node}, "x")
    assert [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)][-1] == "fails"


def test_missing_dependencies_and_keys_are_told_as_dask_tells_them():
    graph = {"a": Task("a", add, TaskRef("nowhere")), "b": Task("b", add, 1)}
    with pytest.raises(ValueError, match=r"Missing dependency nowhere for dependents \{'a'\}"):
        get(graph, "a")
    assert get(graph, "b") == 1
    with pytest.raises(KeyError, match="elsewhere"):
        get(graph, ["b", "elsewhere"])
    with pytest.raises(RuntimeError, match="Cycle detected"):
        get({"a": Task("a", add, TaskRef("b")), "b": Task("b", add, TaskRef("a"))}, "a")


def test_more_keys_are_missing_than_are_there():
    graph = {"a": Task("a", add, *(TaskRef(f"missing-{i}") for i in range(100)))}
    with pytest.raises(ValueError, match=r"Missing dependency missing-\d+ for dependents \{'a'\}"):
        get(graph, "a")
    assert get(graph | {"b": Task("b", add, 1)}, "b") == 1


def test_what_a_node_holds_is_freed_when_the_graph_is_done_or_failed():
    class Held:
        pass

    held = [Held(), Held()]
    graph = {"a": Task("a", lambda held: held, held[0]), "b": Task("b", id, TaskRef("a"))}
    get(graph, "b")
    bad = {"a": Task("a", lambda held: held, held[1]), "b": Task("b", lambda held: 1 / 0, TaskRef("a"))}
    with pytest.raises(ZeroDivisionError):
        get(bad, "b")
    refs = [weakref.ref(item) for item in held]
    del held, graph, bad
    for _ in range(3):  # a worker may still be on its way out of the last task
        gc.collect()
        if not any(ref() is not None for ref in refs):
            return
        threading.Event().wait(0.2)
    raise AssertionError("still alive")


def test_several_errors_at_once_give_the_first_and_lose_nothing_else():
    barrier = threading.Barrier(2)

    def fails(i):
        barrier.wait(20)
        raise ValueError(i)

    for _ in range(50):
        with pytest.raises(ValueError, match=r"^[01]$"):
            get({i: Task(i, fails, i) for i in range(2)}, [0, 1], num_workers=2)
    assert get({"x": Task("x", add, 1)}, "x") == 1


def test_a_program_thread_runs_no_task_itself():
    # Else Ctrl-C and errors would have to wait for it, and tasks would meet an event loop that runs there.
    caller = threading.get_ident()
    graph = {i: Task(i, threading.get_ident) for i in range(200)}
    assert caller not in get(graph, list(graph))


def test_a_task_that_computes_a_graph_runs_its_nodes_meanwhile():
    code = """
    from composable_threads import _native
    _native.configure(1)
    import threading
    from composable_threads.dask_backend import get
    def nested():
        here = threading.get_ident()
        return here, set(get({i: (threading.get_ident,) for i in range(20)}, list(range(20))))
    here, ran = get({"x": (nested,)}, "x")
    print(ran == {here})
    """
    assert check_fresh(code) == "True\n"


@pytest.mark.parametrize("shape", ["wide", "chain"])
def test_100_000_tasks(shape):
    if shape == "wide":
        graph = {("k", i): (add, i) for i in range(100_000)} | {"out": (sum, [("k", i) for i in range(100_000)])}
        assert get(graph, "out") == sum(range(100_000))
    else:
        graph = {("k", 0): (add, 1)} | {("k", i): (add, ("k", i - 1), 1) for i in range(1, 100_000)}
        assert get(graph, ("k", 99_999)) == 100_000
