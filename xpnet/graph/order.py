"""Topological order of values, and their copies and pickles, without recursion.

A graph may be deeper than Python's stack. `copy.deepcopy` and `pickle` follow references by recursion. So values leave
their copies to a `FlatGraph`, which has them in a list and writes their inputs as numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Container
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from xpnet.graph.values import Value

__all__ = ["FlatGraph", "flatten", "in_order"]


def in_order(output: Value, known: Container[int] = ()) -> list[Value]:
    """Sort a value and all values that it needs topologically, depth first.

    Parameters
    ----------
    output : Value
        The last value.
    known : container of int
        The ids of values to leave out, with all that only they need.

    Raises
    ------
    ValueError
        If the graph has a cycle.
    """
    order: list[Value] = []
    state: dict[Value, str] = {}
    stack = [(output, False)]
    while stack:
        value, is_left = stack.pop()
        if is_left:
            state[value] = "done"
            order.append(value)
        elif value not in state and id(value) not in known:
            state[value] = "entered"
            stack.append((value, True))
            for source in reversed(value.inputs):
                if state.get(source) == "entered":
                    raise ValueError(f"{source} is computed from itself: the graph has a cycle through {value}")
                stack.append((source, False))
    return order


class FlatGraph:
    """Values in topological order, as they are copied and pickled: a value is one of them, by its number.

    Parameters
    ----------
    values : list of Value
        The values. Their inputs are among them, or among those of an earlier flat graph of the same copy.
    """

    def __init__(self, values: list[Value]) -> None:
        self.values = values
        self.numbers = {value: number for number, value in enumerate(values)}

    def __getitem__(self, number: int) -> Value:
        return self.values[number]

    def __reduce__(self) -> tuple[Any, ...]:
        states = []
        for value in self.values:
            state = vars(value).copy()
            inputs = [self.numbers.get(source, source) for source in state.pop("inputs")]
            states.append((inputs, state))
        return _without_states, ([type(value) for value in self.values],), states

    def __setstate__(self, states: list[tuple[list[Any], dict[str, Any]]]) -> None:
        for value, (inputs, state) in zip(self.values, states, strict=True):
            vars(value).update(state)
            value.inputs = tuple(self.values[source] if isinstance(source, int) else source for source in inputs)


class _Copies(threading.local):
    """Flat graphs of the copies and pickles under way in this thread, by the ids of their values.

    A copy or pickle of several values must meet each value once. Its memo keeps the flat graphs alive for so long.
    """

    def __init__(self) -> None:
        self.flat = WeakValueDictionary[int, FlatGraph]()


_copies = _Copies()


def flatten(value: Value) -> tuple[FlatGraph, int]:
    """Return a value's flat graph, and its number there."""
    flat = _copies.flat.get(id(value))
    if flat is None:
        flat = FlatGraph(in_order(value, known=_copies.flat))
        _copies.flat.update({id(one): flat for one in flat.values})
    return flat, flat.numbers[value]


def _without_states(classes: list[type[Value]]) -> FlatGraph:
    return FlatGraph([cls.__new__(cls) for cls in classes])
