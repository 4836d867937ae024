"""What programs there are, and what each one must answer."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

Node: TypeAlias = tuple[str, dict[str, Any], list]

DEEPEST = 4  # levels of nodes with children; Joblib's calls run in their caller from the eighth on
MOST_NODES = 40
CAUGHT = 7  # what a node gives in the place of an error that it catches
ERRORS = {kind.__name__: kind for kind in (LookupError, ValueError, ZeroDivisionError, OSError, AssertionError)}
WAITING = ("locked", "meet", "chain", "turns")  # their tasks wait for one another
DOORS = ("joblib", "executor", "pool")


@dataclass(frozen=True)
class Outcome:
    """An exact number, or one of several errors, each as the name of its type and its argument."""

    value: int
    errors: frozenset[tuple[str, int]] = frozenset()

    def caught(self) -> Outcome:
        return Outcome(CAUGHT) if self.errors else self


def outcome(node: Node) -> Outcome:
    """What running `node` must give. A node of which a child fails must fail with the error of such a child."""
    kind, options, children = node
    match kind:
        case "raise":
            return Outcome(0, frozenset([(options["error"], options["mark"])]))
        case "bad":
            return Outcome(0, frozenset([("ValueError", options["at"])]))
        case "fault":
            return Outcome(1, frozenset([("LookupError", 1)]) if options["how"] == "error" else frozenset())
        case "catch":
            return outcome(children[0]).caught()
        case "fork":
            return outcome(children[0])
        case "cancel":
            return _of_cancelled(options["how"], children)
    if not children:
        return Outcome(_leaf(kind, options))
    return _sum(enumerate(children, 1))


def _sum(numbered: Any) -> Outcome:
    value, errors = 0, frozenset()
    for number, child in numbered:
        part = outcome(child)
        value += number * part.value
        errors |= part.errors
    return Outcome(value, errors)


def _of_cancelled(how: str, children: list) -> Outcome:
    match how:
        case "future":
            return _sum(list(enumerate(children, 1))[::2])
        case "shutdown":
            return Outcome(5)
    return outcome(children[0]).caught()


def _leaf(kind: str, options: dict[str, Any]) -> int:
    n = options["n"]
    match kind:
        case "value":
            return n
        case "spin" | "region":
            return n * (n - 1) // 2
        case "nested":
            m = options["m"]
            return m * (n * (n - 1) // 2) + n * (m * (m - 1) // 2)
        case "gufunc":
            return sum(8 * row for row in range(n))
        case "blas":
            return product_trace(n)
    raise ValueError(f"no such node: {kind!r}")


def factor(n: int, kind: type = np.float64) -> np.ndarray:
    """A matrix of n x n whole numbers, so that its products are exact in floats."""
    return (np.arange(n * n) % 7).reshape(n, n).astype(kind)


@functools.cache
def product_trace(n: int) -> int:
    return int(np.trace(factor(n, np.int64) @ factor(n, np.int64)))


def walk(node: Node) -> list[Node]:
    return [node, *(below for child in node[2] for below in walk(child))]


def own_threads(node: Node) -> int:
    """How many threads of the program may be in regions beside tasks that hold all permits, which cannot step back.

    None where the main thread is alone and waits for all it began; errors and cancellations leave tasks that still run.
    """
    kinds = [kind for kind, _, _ in walk(node)]
    if not {"threads", "overlap", "cancel", "raise", "bad"}.intersection(kinds):
        return 0
    return 1 + sum(len(children) for kind, _, children in walk(node) if kind == "threads")


def unsaid_waits(node: Node) -> int:
    """How many tasks may lose their permit because they sleep without saying so, and compute uncounted afterwards."""
    return sum(len(children) for _, options, children in walk(node) if options.get("says") is False)


def _options(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({name: given if isinstance(given, st.SearchStrategy) else st.sampled_from(given)
                                  for name, given in fields.items()})  # fmt: skip


_N = st.integers
_NARROW = 40  # OpenBLAS multiplies matrices of this size on one thread
_LEAVES = {
    "value": _options(n=_N(0, 9)),
    "spin": _options(n=(1, 100, 20_000)),
    "region": _options(n=(0, 1, 2, 7, 100, 5000)),
    "nested": _options(n=(1, 3, 8), m=(1, 4, 50)),
    "gufunc": _options(n=(1, 5, 64)),
    "blas": _options(n=(3, _NARROW, 150)),
    "raise": _options(error=sorted(ERRORS), mark=_N(0, 9)),
    "bad": _options(n=st.just(20), at=_N(0, 19)),
}
_FORMS = ("list", "generator", "generator_unordered")
_SAYS = (True, False)
_ABOVE = {
    "joblib": _options(n_jobs=(2, 1, 3, -1), batch=("auto", 1, 2), form=_FORMS, ahead=("2 * n_jobs", "all", 1)),
    "dask": _options(form=("delayed", "dict", "chain"), workers=(None, 1, 2, 5)),
    "executor": _options(how=("submit", "map", "callbacks", "completed", "wait"), workers=(None, 1, 2, 5)),
    "pool": _options(how=("map", "apply", "imap", "unordered", "async"), workers=(1, 2, 5)),
    "threads": _options(says=_SAYS),
    "objects": _options(),
    "overlap": _options(form=_FORMS[1:]),
    "locked": _options(door=DOORS, says=_SAYS),
    "meet": _options(door=DOORS, says=_SAYS),
    "chain": _options(door=DOORS, says=_SAYS),
    "turns": _options(door=DOORS, says=_SAYS),
    "fork": _options(),
    "catch": _options(),
    "cancel": _options(how=("future", "generator", "map", "imap", "shutdown")),
}
_OF_ONE = ("fork", "catch")


@st.composite
def _tree(draw: st.DrawFn, levels: int, *, leaf: bool = True) -> Node:
    if leaf and (levels == 0 or draw(st.booleans())):
        kind = draw(st.sampled_from(list(_LEAVES)))
        return kind, draw(_LEAVES[kind]), []
    kind = draw(st.sampled_from(list(_ABOVE)))
    most = 1 if kind in _OF_ONE else 4
    return kind, draw(_ABOVE[kind]), draw(st.lists(_tree(levels - 1), min_size=1, max_size=most))


def _without_wide_products(node: Node) -> Node:
    kind, options, children = node
    return kind, {**options, "n": min(options["n"], _NARROW)} if kind == "blas" else options, [
        _without_wide_products(child) for child in children
    ]  # fmt: skip


def _possible_on_stock(node: Node) -> Node:
    """A fork during a product on several threads of OpenBLAS hangs the product, with NumPy alone too."""
    return _without_wide_products(node) if any(kind == "fork" for kind, _, _ in walk(node)) else node


def programs() -> st.SearchStrategy[Node]:
    """Trees of at most DEEPEST levels above the leaves."""
    return _tree(DEEPEST, leaf=False).filter(lambda node: len(walk(node)) <= MOST_NODES).map(_possible_on_stock)
