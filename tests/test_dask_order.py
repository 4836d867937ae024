"""The native order against Dask's own: the same answers, no more memory, and Dask's tests of it."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import random
import subprocess
import sys
from array import array
from pathlib import Path

import dask
import dask.order
import pytest
from composable_threads import _native
from composable_threads.dask_backend.order import order
from dask._task_spec import Alias, DataNode, Task, TaskRef
from dask_order_graphs import as_tasks, generated, held, of_collections

SEEDS = range(5)

same_algorithm = pytest.mark.skipif(
    "leafs_per_degree" not in inspect.getsource(dask.order), reason="this Dask chooses its targets in another way"
)


def native(graph):
    index = {key: number for number, key in enumerate(graph)}
    offsets, targets = [0], []
    for deps, _ in graph.values():
        targets += [index.setdefault(dep, len(index)) for dep in deps]
        offsets.append(len(targets))
    is_task = [is_task for _, is_task in graph.values()]
    return dict(zip(graph, _native.order(offsets, targets, is_task, list(index)), strict=True))


@same_algorithm
def test_generated_graphs_are_ordered_as_dask_does():
    from dask_order_oracle import ordered_dask_order

    compared = 0
    for graph in generated(200):
        try:
            expected = ordered_dask_order(graph)
        except IndexError:  # Dask loses data that only nested lists depend on
            assert all(priority >= 0 for priority in native(graph).values())
            continue
        assert native(graph) == expected
        compared += 1
    assert compared > 600


@same_algorithm
def test_graphs_of_collections_are_ordered_as_dask_does():
    from dask_order_oracle import ordered_dask_order

    for name, graph in of_collections().items():
        assert order(as_tasks(graph)) == ordered_dask_order(graph), name


# Run with one seed for hashes: what Dask's order of each graph holds at most, and our order.
CHILD = """
import json, pickle, sys
import dask.order
from composable_threads.dask_backend.order import order
from dask_order_graphs import as_tasks, held

found = {}
with open(sys.argv[1], "rb") as file:
    graphs = pickle.load(file)
for name, graph in graphs.items():
    tasks = as_tasks(graph)
    found[name] = held(tasks, dask.order.order(tasks)), list(order(tasks).values())
print(json.dumps(found))
"""


@same_algorithm
def test_no_more_is_held_than_by_dask_and_hashes_do_not_matter(tmp_path):
    graphs = of_collections()
    graphs |= {
        f"generated {number}": {key: ([dep for dep in deps if dep in graph], True) for key, (deps, _) in graph.items()}
        for number, graph in enumerate(generated(40))
    }
    (tmp_path / "graphs").write_bytes(pickle.dumps(graphs))
    runs = []
    for seed in SEEDS:
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path / "graphs")],
            env=os.environ | {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(Path(__file__).parent)},
            stdout=subprocess.PIPE,
            timeout=120,
            check=True,
        ).stdout
        runs.append(json.loads(output))
    ours = 0
    for name, graph in graphs.items():
        tasks = as_tasks(graph)
        mine = order(tasks)
        assert all(run[name][1] == list(mine.values()) for run in runs), name
        worst = max(run[name][0] for run in runs)
        assert held(tasks, mine) <= worst, name
        ours += held(tasks, mine)
    theirs = [sum(run[name][0] for name in graphs) for run in runs]
    assert len(set(theirs)) > 1  # else the seeds changed nothing, and nothing was compared
    assert ours <= max(theirs)


def test_graphs_of_both_specifications():
    assert order({}) == {}
    assert order({"a": 1, "b": (min, "a"), "c": (min, "a", "b")}) == {"a": 0, "b": 1, "c": 2}
    tasks = {"b": Task("b", min, TaskRef("a")), "a": DataNode("a", 1), "c": Alias("c", "b")}
    before = dict(tasks)
    assert order(tasks) == {"a": 0, "b": 1, "c": 2} and tasks == before
    assert list(order(tasks)) == list(tasks)


def test_external_keys_are_left_out():
    tasks = {"a": Task("a", min, TaskRef("x")), "b": Task("b", min, TaskRef("y"), TaskRef("x"), TaskRef("a"))}
    assert order(tasks) == dask.order.order(tasks) == {"a": 0, "b": 1}


def test_statistics_are_dasks():
    tasks = {"a": Task("a", min), "b": Task("b", min, TaskRef("a"))}
    assert order(tasks, return_stats=True) == dask.order.order(tasks, return_stats=True)


@pytest.mark.parametrize("tail", [{}, {"d": (min, "c")}, {"d": (min, "e"), "e": 1}])
def test_cycle_is_told_as_dask_does(tail):
    cyclic = {"a": (min, "b"), "b": (min, "c"), "c": (min, "a")} | tail
    with pytest.raises(RuntimeError, match="Cycle detected") as stock:
        dask.order.order(cyclic)
    with pytest.raises(RuntimeError) as ours:
        order(cyclic)
    assert str(ours.value) == str(stock.value)


def test_text_of_any_key():
    class Odd:
        def __str__(self):
            return "('a', 155)"

    keys = [("a", i) for i in (*range(-3, 30), 2**40, -(2**70))]
    keys += [
        "",
        "a",
        "b" * 300,
        "(",
        "('a'",
        "'",
        "é",
        "\U0001f600",
        "\uffff",
        "\ud800",
        "\ud8000",
        ("a",),
        (),
        Odd(),
        7,
        1.5,
    ]
    keys += [
        ("it's", 1),
        ('"', 1),
        ("back\\slash", 1),
        ("é", 1),
        ("new\nline", 1),
        ("\ud800", 1),
        ("a", 1.5, None),
        ("a", True),
    ]
    keys += [("a", ("b", 1)), (("a", 1), 2), ("a", "b", "c", 1), (1, "a"), b"a", frozenset()]
    assert len(set(map(str, keys))) == len(keys)
    count = len(keys)
    # Equal in everything else, they run by text, last one first.
    for texts in (keys, tuple(keys), lambda i: str(keys[i])):
        priorities = _native.order([0] * (count + 1), [], [1] * count, texts)
        assert sorted(keys, key=str, reverse=True) == [keys[priorities.index(i)] for i in range(count)]


_RANDOM = random.Random(5)
TEXTS = {
    "numbers": [f"('block', {i})" for i in range(2000)],
    "hashes": [f"('{_RANDOM.randbytes(4).hex()}', {i})" for i in range(500)],
    "the same eight bytes, then others": [f"x{i % 7}-of-this-many-{i:04}" for i in range(500)],
    "beginnings of others": ["same" + "a" * i for i in range(300)],
    "zeros": ["k" + "\0" * (i % 20) + "b" * (i // 20) for i in range(300)],
    "no byte in common": [chr(i) for i in range(0x20, 0x220)],
    "of several": [f"{i}" for i in range(0, 500, 5) for _ in range(5)],
    "one text": ["x"] * 300,
}


@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("count", [2, 20, None])
def test_keys_that_differ_in_nothing_else_run_by_their_text(texts, count):
    for arrange in (list, lambda texts: random.Random(6).sample(texts, len(texts)), lambda texts: texts[::-1]):
        some = arrange(texts)[:count]
        priorities = _native.order([0] * (len(some) + 1), [], [1] * len(some), some.__getitem__)
        # Last one first; those of one text by their number.
        assert sorted(range(len(some)), key=priorities.__getitem__, reverse=True) == sorted(
            range(len(some)), key=lambda node: (some[node], node)
        )


def test_integers_from_any_buffer_or_sequence():
    offsets, targets, is_task = [0, 0, 1, 3], [0, 0, 1], [True, 1, 5]
    for code in "iqIQhB":
        flat = (array(code, offsets), array(code, targets), array(code, is_task))
        assert _native.order(*flat, "abc") == [0, 1, 2]
        assert _native.order(*map(memoryview, flat), "abc") == [0, 1, 2]
    assert _native.order(tuple(offsets), targets, bytes([1, 1, 1]), list("abc")) == [0, 1, 2]
    assert _native.order([0], [], b"", []) == []


@pytest.mark.parametrize(
    ("offsets", "targets", "is_task", "error"),
    [
        ([0, 1], [], [1], ValueError),
        ([0, 0, 0], [], [1], ValueError),
        ([0, 2, 1], [0], [1, 1], ValueError),
        ([0, 1], [-1], [1], ValueError),
        ([0, 1], [2**31], [1], ValueError),
        ([0, 1], [50], [1], ValueError),
        ([0, 1], [0.5], [1], TypeError),
        (array("d", [0, 0]), [], [1], TypeError),
        (memoryview(bytes(4)).cast("B", (2, 2)), [], [1], TypeError),
        (memoryview(bytes(4))[::2], [], [1], BufferError),
        ([0, 1], [0], [1], _native.CycleError),
    ],
)
def test_malformed_graphs_are_refused(offsets, targets, is_task, error):
    with pytest.raises(error):
        _native.order(offsets, targets, is_task, ["key"] * 60)


def test_errors_of_keys_come_out():
    class Mute:
        def __str__(self):
            raise LookupError("no text")

    two = ([0, 0, 0], [], [1, 1])
    with pytest.raises(LookupError, match="no text"):
        _native.order(*two, [Mute(), Mute()])
    with pytest.raises(ZeroDivisionError):
        _native.order(*two, lambda i: 1 / 0)
    with pytest.raises(TypeError):
        _native.order(*two, lambda i: 1)
    with pytest.raises(IndexError):
        _native.order(*two, ["a"])


def test_keys_are_not_asked_for_their_text_without_need():
    asked = []
    assert _native.order([0, 0, 1, 2], [0, 1], [1, 1, 1], asked.append) == [0, 1, 2]
    assert asked == []


def test_deep_and_wide_graphs():
    deep = {0: Task(0, min)} | {i: Task(i, min, TaskRef(i - 1)) for i in range(1, 50_000)}
    assert list(order(deep).values()) == list(range(50_000))
    # A map on each side of a barrier, for which Dask itself takes minutes.
    wide = {("a", i): Task(("a", i), min) for i in range(30_000)}
    wide["b"] = Task("b", min, *map(TaskRef, wide))
    wide |= {("c", i): Task(("c", i), min, TaskRef("b")) for i in range(30_000)}
    priorities = order(wide)
    assert priorities["b"] == 30_000 and sorted(priorities.values()) == list(range(60_001))
