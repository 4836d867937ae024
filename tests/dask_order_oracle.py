"""Dask's own `order`, made repeatable: its source with every set replaced by one that iterates in order of insertion.

Dask iterates over sets where it holds the order to be of no importance, so its answer may change with the hashes of the
keys. With this, one graph has one answer, and the native port can be asked for the very same. In one place the port
sorts the set (native/order.h tells why), so the same is done here.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dask.order


class OrderedSet:
    """As much of set and frozenset as dask.order uses; pop() takes what came first."""

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._items = dict.fromkeys(items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrderedSet) and self._items.keys() == other._items.keys()

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __and__(self, other: OrderedSet) -> OrderedSet:
        return OrderedSet(item for item in self if item in other)

    def __sub__(self, other: OrderedSet) -> OrderedSet:
        return self.difference(other)

    def difference(self, other: Any) -> OrderedSet:
        return OrderedSet(item for item in self if item not in other)

    def issubset(self, other: OrderedSet) -> bool:
        return self._items.keys() <= other._items.keys()

    def add(self, item: Any) -> None:
        self._items[item] = None

    def update(self, items: Iterable[Any]) -> None:
        self._items.update(dict.fromkeys(items))

    def discard(self, item: Any) -> None:
        self._items.pop(item, None)

    def remove(self, item: Any) -> None:
        del self._items[item]

    def pop(self) -> Any:
        first = next(iter(self._items))
        del self._items[first]
        return first


class _Dependencies(Mapping):
    """In the place of DependenciesMapping: a view of the graph; what is deleted leaves the others' dependencies."""

    def __init__(self, dsk: dict[Any, Any]) -> None:
        self._dsk = dsk
        place = {key: number for number, key in enumerate(dsk)}
        for deps, _ in dsk.values():
            for dep in deps:
                place.setdefault(dep, len(place))
        self._sets = {key: OrderedSet(sorted(deps, key=place.__getitem__)) for key, (deps, _) in dsk.items()}
        self._users = _reverse(self._sets)

    def __getitem__(self, key: Any) -> OrderedSet:
        return self._sets.setdefault(key, OrderedSet())  # an external key was added to the graph later

    def __contains__(self, key: object) -> bool:
        return key in self._dsk

    def __iter__(self) -> Iterator[Any]:
        return iter(self._dsk)

    def __len__(self) -> int:
        return len(self._dsk)

    def __delitem__(self, key: Any) -> None:
        for user in self._users[key]:
            self._sets[user].remove(key)
        for dep in self._sets.pop(key):
            self._users[dep].remove(key)


def _reverse(dependencies: Mapping[Any, Iterable[Any]]) -> dict[Any, OrderedSet]:
    dependents = {key: OrderedSet() for key in dependencies}
    for key, deps in dependencies.items():
        for dep in deps:
            dependents.setdefault(dep, OrderedSet()).add(key)
    return dependents


class _Rewrite(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.copy_location(ast.Name("OrderedSet", node.ctx), node) if node.id in ("set", "frozenset") else node

    def visit_SetComp(self, node: ast.SetComp) -> ast.AST:
        self.generic_visit(node)
        return self._ordered(node, ast.GeneratorExp(node.elt, node.generators))

    def visit_Set(self, node: ast.Set) -> ast.AST:
        self.generic_visit(node)
        return self._ordered(node, ast.List(node.elts, ast.Load()))

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node) == "path_extend(next_deps)":
            node.args = [ast.parse("sorted(next_deps, key=sort_key)", mode="eval").body]
        return ast.fix_missing_locations(node)

    def _ordered(self, node: ast.AST, items: ast.expr) -> ast.AST:
        call = ast.Call(ast.Name("OrderedSet", ast.Load()), [items], [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


def _load() -> Callable[..., dict[Any, int]]:
    tree = _Rewrite().visit(ast.parse(inspect.getsource(dask.order)))
    module: dict[str, Any] = {"__name__": "ordered_dask_order", "OrderedSet": OrderedSet}
    exec(compile(tree, dask.order.__file__, "exec"), module)
    module["DependenciesMapping"] = _Dependencies
    module["reverse_dict"] = _reverse
    module["istask"] = lambda node: node[1] if type(node) is tuple else False
    return module["order"]


#: order(dsk) with dsk = {key: ([dependencies], is a task)}; external keys are dependencies without an entry.
ordered_dask_order = _load()
