"""Where the nodes of a graph are drawn: in layers, from left to right.

The classic recipe of layered drawing, in the small: the layer of a node is the length of the longest path to it; an
edge over several layers gets a point in each that it passes, and all edges out of one node share these points, as
wires do; the order within a layer is improved until few edges cross; then heights are chosen that make edges straight.

Labels of edges have columns of their own between the layers, and edges bend only in the gaps between columns. So no
edge can run through a node or a label that is not its own, and nothing overlaps.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Edge", "Layout", "Node", "Route", "arrange"]

MARGIN = 20.0
PORTS = 11.0
"""Distance between the points at which a node's edges arrive."""
ORDERINGS = 16
HEIGHTS = 40
STRAIGHTNESS = (1.0, 2.0, 8.0)
"""How much an edge resists a bend: between ends, at one point that it only passes, and between two of these."""
MERGE = 20.0
"""How little it does where it meets others: as much as an edge that climbs this far."""


@dataclass(frozen=True)
class Node:
    """The room that a node takes: its width, and how far it reaches above and below the height of its edges."""

    width: float
    above: float
    below: float


@dataclass(frozen=True)
class Edge:
    """An edge from one node to a later one, by their numbers, and the room for its label, which it runs through."""

    source: int
    target: int
    label: Node


@dataclass(frozen=True)
class Route:
    """How an edge runs.

    Attributes
    ----------
    points : list of (float, float)
        From the edge of the source's column to that of the target's: a bend, straight on, a bend, and so on.
    label : (float, float)
        The middle of its label.
    """

    points: list[tuple[float, float]]
    label: tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """A drawing's size, the middle of each node, and the route of each edge."""

    width: float
    height: float
    nodes: list[tuple[float, float]]
    routes: list[Route]


def arrange(nodes: Sequence[Node], edges: Sequence[Edge]) -> Layout:
    """Find a place for every node and a way for every edge.

    Parameters
    ----------
    nodes : sequence of Node
        What to place, each before all that its edges lead to.
    edges : sequence of Edge
        In the order in which they arrive at their targets, from top to bottom.
    """
    chart = _Chart(nodes, edges)
    _reduce_crossings(chart.columns)
    _choose_heights(chart.columns)
    return chart.measure()


@dataclass(eq=False)
class _Item:
    """What stands in a column: a node, an edge's label, or a point that edges pass."""

    room: Node
    kind: str
    left: list[_Link] = field(default_factory=list)
    right: list[_Link] = field(default_factory=list)
    place: int = 0
    y: float = 0.0


@dataclass(eq=False)
class _Link:
    """A piece of an edge between neighbouring columns; `port` tells where it arrives at `end`, -1/2 to 1/2."""

    start: _Item
    end: _Item
    port: float
    drop: float

    def pull(self, climb: float, near: float) -> float:
        """Weigh the wish of the two ends to be at one height.

        The weight falls with the climb, so that a few sharp bends are preferred to many slight ones; where edges
        meet, it does not, so that the node stands in their middle.
        """
        strength = STRAIGHTNESS[(self.start.kind == "point") + (self.end.kind == "point")]
        return strength / (climb + near if self.drop == 0 else MERGE)


class _Chart:
    """The columns: layers of nodes are the even ones, labels stand in the odd ones."""

    def __init__(self, nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
        self.edges = edges
        self.layers = _longest_paths(len(nodes), edges)
        self.columns: list[list[_Item]] = [[] for _ in range(2 * max(self.layers, default=0) + 1)]
        self.nodes = [_Item(room, "node") for room in nodes]
        for item, layer in zip(self.nodes, self.layers, strict=True):
            self.columns[2 * layer].append(item)
        self.points: dict[tuple[int, int], _Item] = {}
        arriving: dict[int, list[int]] = {}
        for number, edge in enumerate(edges):
            arriving.setdefault(edge.target, []).append(number)
        self.ways = [self._connect(edge, arriving[edge.target].index(i), arriving) for i, edge in enumerate(edges)]

    def _connect(self, edge: Edge, slot: int, arriving: dict[int, list[int]]) -> list[_Item]:
        """Lay an edge from its source, past points that it shares with the source's other edges, to its target."""
        last = 2 * self.layers[edge.target] - 1
        way = [self.nodes[edge.source]]
        for column in range(2 * self.layers[edge.source] + 1, last):
            point = self.points.get((edge.source, column))
            if point is None:
                point = self.points[edge.source, column] = self._add(column, _Item(Node(0, 0, 0), "point"), way[-1])
            way.append(point)
        way.append(self._add(last, _Item(edge.label, "label"), way[-1]))
        count = len(arriving[edge.target])
        step = min(PORTS, 2.5 * PORTS / count)
        link = _Link(way[-1], self.nodes[edge.target], (slot + 0.5) / count - 0.5, (slot - (count - 1) / 2) * step)
        link.start.right.append(link)
        link.end.left.append(link)
        way.append(self.nodes[edge.target])
        return way

    def _add(self, column: int, item: _Item, start: _Item) -> _Item:
        link = _Link(start, item, 0.0, 0.0)
        start.right.append(link)
        item.left.append(link)
        self.columns[column].append(item)
        return item

    def measure(self) -> Layout:
        """Give columns their places from left to right, and turn all into points."""
        top = min((i.y - i.room.above for c in self.columns for i in c), default=0.0) - MARGIN
        spans, x = [], MARGIN
        for column in self.columns:
            width = max((item.room.width for item in column), default=0.0)
            spans.append((x, x + width))
            x += width + _gap(column)
        places = [
            (self._across(item, spans[2 * layer]), item.y - top)
            for item, layer in zip(self.nodes, self.layers, strict=True)
        ]
        routes = [
            self._route(way, 2 * self.layers[edge.source], spans, top)
            for way, edge in zip(self.ways, self.edges, strict=True)
        ]
        bottom = max((i.y + i.room.below for c in self.columns for i in c), default=0.0) - top + MARGIN
        return Layout(spans[-1][1] + MARGIN, bottom, places, routes)

    @staticmethod
    def _across(item: _Item, span: tuple[float, float]) -> float:
        """Beginnings stand at the right of their column, ends at the left: their edges are short."""
        if not item.left and item.right:
            return span[1] - item.room.width / 2
        if not item.right and item.left:
            return span[0] + item.room.width / 2
        return (span[0] + span[1]) / 2

    @staticmethod
    def _route(way: list[_Item], first: int, spans: list[tuple[float, float]], top: float) -> Route:
        points = [(spans[first][1], way[0].y - top)]
        for column, item in enumerate(way[1:-1], first + 1):
            points += [(spans[column][0], item.y - top), (spans[column][1], item.y - top)]
        drop = way[-2].right[0].drop
        column = first + len(way) - 1
        points.append((spans[column][0], way[-1].y - top + drop))
        return Route(points, (sum(spans[column - 1]) / 2, way[-2].y - top))


def _longest_paths(count: int, edges: Sequence[Edge]) -> list[int]:
    """Number the layers; what needs nothing stands just before its first use."""
    layers, sources, uses = [0] * count, [True] * count, [count] * count
    for edge in sorted(edges, key=lambda edge: edge.target):
        if not 0 <= edge.source < edge.target < count:
            raise ValueError(f"an edge must lead from a node to a later one, got {edge.source} -> {edge.target}")
        layers[edge.target] = max(layers[edge.target], layers[edge.source] + 1)
        sources[edge.target] = False
    for edge in edges:
        uses[edge.source] = min(uses[edge.source], layers[edge.target])
    return [
        use - 1 if is_source and use < count else layer
        for layer, is_source, use in zip(layers, sources, uses, strict=True)
    ]


def _gap(column: list[_Item]) -> float:
    """The room for the bends to the right of a column: more where an edge climbs further, so that none is steep."""
    climb = max((abs(link.end.y + link.drop - item.y) for item in column for link in item.right), default=0.0)
    return min(16.0 + 0.22 * climb, 90.0)


def _reduce_crossings(columns: list[list[_Item]]) -> None:
    """Sort each column by its neighbours' places, from the end and from the beginning in turn; keep the best."""
    _number(columns)
    best: list[list[_Item]] = []
    fewest = -1
    for sweep in range(ORDERINGS):
        if sweep % 2 == 0:
            for column in reversed(columns[:-1]):
                _sort(column, lambda item: [link.end.place + link.port for link in item.right])
        else:
            for column in columns[1:]:
                _sort(column, lambda item: [link.start.place - link.port for link in item.left])
        crossings = sum(map(_crossings, columns))
        if fewest < 0 or crossings < fewest:
            best, fewest = [list(column) for column in columns], crossings
        if crossings == 0:
            break
    columns[:] = best
    _number(columns)


def _number(columns: Iterable[list[_Item]]) -> None:
    for column in columns:
        for place, item in enumerate(column):
            item.place = place


def _sort(column: list[_Item], neighbours: Callable[[_Item], list[float]]) -> None:
    keys = {item: _mean(neighbours(item), item.place) for item in column}
    column.sort(key=keys.__getitem__)
    _number([column])


def _mean(numbers: list[float], default: float) -> float:
    return sum(numbers) / len(numbers) if numbers else default


def _crossings(column: list[_Item]) -> int:
    """Count the crossings between a column and the next one: the inversions among the places that are met."""
    met = sorted((item.place, link.end.place + link.port) for item in column for link in item.right)
    count, seen = 0, list[float]()
    for _, place in met:
        count += len(seen) - bisect.bisect_right(seen, place)
        bisect.insort(seen, place)
    return count


def _choose_heights(columns: list[list[_Item]]) -> None:
    """Move each column to where its edges are straight, as far as the room that each item needs allows.

    First from the beginning and from the end in turn, which brings things near their places, then by both neighbours.
    """
    for column in columns:
        _settle(column, [(0.0, 1.0)] * len(column))
    for sweep in range(HEIGHTS):
        forward, both = sweep % 2 == 0, sweep >= HEIGHTS // 3
        near = max(8.0 * 0.85**sweep, 0.05)  # at last, what is nearly straight becomes straight
        for column in columns if forward else reversed(columns):
            _settle(column, [_wish(item, forward or both, both or not forward, near) for item in column])


def _wish(item: _Item, by_left: bool, by_right: bool, near: float) -> tuple[float, float]:
    """Say where an item wants to be, and how much: at the weighted mean of its neighbours."""
    total = weights = 0.0
    for link, y in [(link, link.start.y - link.drop) for link in item.left if by_left] + [
        (link, link.end.y + link.drop) for link in item.right if by_right
    ]:
        weight = link.pull(abs(y - item.y), near)
        total += weight * y
        weights += weight
    return (total / weights, weights) if weights else (item.y, 1e-3)


def _settle(column: list[_Item], wishes: list[tuple[float, float]]) -> None:
    """Find the heights nearest to those wished for that keep order and distance (isotonic regression)."""
    offsets, blocks = list[float](), list[tuple[float, float, int]]()
    for i, (item, (wish, weight)) in enumerate(zip(column, wishes, strict=True)):
        previous = column[i - 1]
        distance = previous.room.below + _distance(previous, item) + item.room.above if i else 0.0
        offsets.append(offsets[-1] + distance if i else 0.0)
        total, size = weight * (wish - offsets[-1]), 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / weight:
            total, weight, size = total + blocks[-1][0], weight + blocks[-1][1], size + blocks[-1][2]
            blocks.pop()
        blocks.append((total, weight, size))
    heights = [total / weight for total, weight, size in blocks for _ in range(size)]
    for item, offset, height in zip(column, offsets, heights, strict=True):
        item.y = height + offset


def _distance(upper: _Item, lower: _Item) -> float:
    if upper.kind == "point" or lower.kind == "point":
        return 10.0
    return 12.0 if upper.kind == "node" else 16.0
