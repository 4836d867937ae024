"""Graphs to order, as plain data: ``{key: ([dependencies], is a task)}``."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator
from typing import Any

import dask
import dask.order
from dask._task_spec import DataNode, GraphNode, Task, TaskRef, convert_legacy_graph

Graph = dict[Hashable, tuple[list[Any], bool]]


def as_tasks(graph: Graph) -> dict[Hashable, GraphNode]:
    """As Dask takes it; without nodes that have dependencies and are no tasks, which Dask no longer knows."""
    return {
        key: Task(key, min, *map(TaskRef, deps)) if is_task else DataNode(key, 1)
        for key, (deps, is_task) in graph.items()
        if is_task or not deps
    }


def held(tasks: dict[Hashable, GraphNode], priorities: dict[Hashable, int]) -> int:
    """How many results are kept at once at most, if tasks run one after the other."""
    return max(dask.order.diagnostics(tasks, o=priorities)[1])


def renamed(rng: random.Random, rows: list[tuple[list[Any], bool]]) -> Graph:
    """Rows by number under keys that sort otherwise, in an order that is neither; what is no number stays as it is."""
    numbers = list(range(len(rows)))
    rng.shuffle(numbers)
    tuples = rng.random() < 0.5
    names = [(f"name-{number % 3}", number) if tuples else f"k{number:05d}" for number in numbers]
    items = [
        (name, ([names[dep] if isinstance(dep, int) else dep for dep in deps], is_task))
        for name, (deps, is_task) in zip(names, rows, strict=True)
    ]
    if rng.random() < 0.7:
        rng.shuffle(items)
    return dict(items)


def scattered(rng: random.Random, size: int) -> Graph:
    """Anything: with data, with nodes that are no tasks but have dependencies, and with external keys."""
    fan, window = rng.choice([0.7, 1.0, 1.5, 3.0]), rng.choice([3, 6, 20, size])
    data, external = rng.choice([0, 0, 0.1]), rng.choice([0, 0, 0.05])
    rows: list[tuple[list[Any], bool]] = []
    for number in range(size):
        first = max(0, number - window)
        deps: list[Any] = rng.sample(range(first, number), min(int(rng.expovariate(1 / fan)), number - first))
        if rng.random() < external:
            deps.append(f"external-{rng.randrange(4)}")
        rows.append((deps, rng.random() >= data))
    return renamed(rng, rows)


def layered(rng: random.Random, size: int) -> Graph:
    """What collections are made of: maps, reductions, stencils, barriers, splits, operands from far away."""
    rows: list[tuple[list[Any], bool]] = []
    last: list[int] = []
    while len(rows) < size:
        kind = rng.choice(["roots", "map", "reduce", "stencil", "all", "split", "operand"]) if last else "roots"
        width = rng.choice([2, 3, 4])
        layer = {
            "roots": [[] for _ in range(rng.choice([1, 2, 5, 13]))],
            "map": [[node] for node in last],
            "reduce": [last[i : i + width] for i in range(0, len(last), width)],
            "stencil": [last[max(0, i - 1) : i + 2] for i in range(len(last))],
            "all": [last for _ in range(width)],
            "split": [[node] for node in last for _ in range(2)][:24],
            "operand": [[node, rng.randrange(len(rows))] if rows else [node] for node in last],
        }[kind]
        is_task = kind != "roots" or rng.random() < 0.8
        before, start = last, len(rows)
        rows += [(sorted(set(deps)), is_task) for deps in layer]
        last = list(range(start, len(rows)))
        if kind == "roots":
            last = before + last
        if rng.random() < 0.15:
            last = []
    if rng.random() < 0.4:
        rows.append(([node for node in range(len(rows)) if rng.random() < 0.3], rng.random() < 0.5))
    return renamed(rng, rows)


def nested(rng: random.Random, depth: int) -> Graph:
    """Splits and joins within splits and joins: what Dask's paths to reducers are for."""
    rows: list[tuple[list[Any], bool]] = []

    def new(*deps: int) -> int:
        rows.append((sorted(set(deps)), True))
        return len(rows) - 1

    def build(source: int, depth: int) -> int:
        kind = rng.random()
        if depth == 0 or kind < 0.2:
            return new(source)
        if kind < 0.5:
            return build(build(source, depth - 1), depth - 1)
        split = new(source)
        ends = [build(split, depth - 1) for _ in range(rng.choice([2, 2, 3]))]
        if rng.random() < 0.15:
            ends.append(split)
        if rng.random() < 0.15:
            ends.pop()  # becomes a leaf
        if rng.random() < 0.2:
            ends.append(new())
        return new(*ends)

    ends = [build(new(), depth) for _ in range(rng.choice([1, 1, 2, 3]))]
    if rng.random() < 0.5:
        new(*ends)
    return renamed(rng, rows)


def braid(rng: random.Random, size: int) -> Graph:
    """So long that what is depended on in all, counted along every way, is beyond 64 bits."""
    rows = [(rng.sample(range(max(0, i - 4), i), min(i, rng.choice([2, 2, 3]))), True) for i in range(size)]
    return renamed(rng, rows)


# Where it matters that Dask counts what is done already when it compares lengths of paths: one nested graph in 200.
TELLING = (477, 692, 806, 863, 892, 1082, 1138, 1356, 3132, 3712, 4192, 4297, 4573, 4703, 5034, 5470, 5993, 6079)


def generated(count: int) -> Iterator[Graph]:
    for seed in range(count):
        rng = random.Random(seed)
        yield scattered(rng, rng.randint(1, 80))
        yield layered(rng, rng.randint(1, 120))
        yield nested(rng, rng.randint(1, 5))
        if seed % 10 == 0:
            yield braid(rng, rng.randint(100, 200))
    for seed in TELLING:
        yield nested(random.Random(seed), 5)


def of_collections() -> dict[str, Graph]:
    """Graphs that Dask makes, some optimised, with keys that are the same in every run."""
    import dask.array as da
    import dask.bag as db
    import dask.dataframe as dd
    import pandas as pd

    def read(collection: Any, optimize: bool = False) -> Graph:
        if optimize:
            (collection,) = dask.optimize(collection)
        dsk = convert_legacy_graph(dict(collection.__dask_graph__()))
        graph = {key: (sorted(node.dependencies, key=str), not isinstance(node, DataNode)) for key, node in dsk.items()}
        return dict(sorted(graph.items(), key=lambda item: str(item[0])))

    x = da.ones((160, 160), chunks=20)
    tall = da.ones((400, 20), chunks=(20, 20))
    frame = dd.from_pandas(pd.DataFrame({"a": range(200), "b": range(200)}), npartitions=20)
    bag = db.from_sequence(range(120), npartitions=40)
    made = {
        "mean": x.mean(),
        "anomaly": (x - x.mean(axis=0)).std(axis=0),
        "matmul": x @ x.T,
        "qr": da.linalg.qr(tall)[0],
        "svd": da.linalg.svd(tall)[0],
        "lu": da.linalg.lu(da.ones((100, 100), chunks=20))[1],
        "rechunk": x.rechunk((160, 20)).rechunk((20, 160)).sum(axis=0),
        "cumsum": x.cumsum(axis=0) + x.cumsum(axis=1),
        "overlap": x.map_overlap(abs, depth=1).map_overlap(abs, depth=1),
        "topk": da.topk(x.ravel(), 5),
        "fold": bag.map(abs).fold(max),
        "groupby": frame.groupby("a").b.mean(),
        "merge": frame.merge(frame, on="a"),
        "shuffle": frame.shuffle("a", shuffle_method="tasks"),
    }
    graphs = {name: read(collection) for name, collection in made.items()}
    graphs |= {f"{name}, optimised": read(made[name], optimize=True) for name in ("mean", "anomaly", "matmul", "fold")}
    return graphs
