"""Layout of a graph: nodes in layers, from left to right.

The layout follows the classic steps of layered drawing:

1. The layer of a node is the length of the longest path to it.
2. An edge over several layers gets a point in each layer that it passes. All edges of one source share these points.
3. The nodes of a layer are reordered to reduce crossings.
4. Heights are chosen that make edges straight.

Labels of edges have columns of their own between the layers, and edges bend only in the gaps between columns. So an
edge crosses no node and no other edge's label, and nothing overlaps.

No eye follows a line over dozens of layers, and a drawing of such lines grows with the square of the graph. So a node
that would wait for long stands next to its use. An edge that is still long (`long_edges`) can begin at its source's
name, repeated next to the target. Layouts then take time in proportion to nodes and edges.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

__all__ = ["Edge", "Layout", "Node", "Route", "arrange", "long_edges"]

LONGEST = 16
"""Layers that an edge may cross, and a node may wait: about the width of a screen."""
MARGIN = 20.0
PORTS = 11.0
"""Distance between the ends of edges at their target."""
ORDERINGS = 16
HEIGHTS = 40
FULL = 10_000
"""Items up to which all sweeps are made. Larger drawings get fewer, down to a quarter."""
STRAIGHTNESS = (1.0, 2.0, 8.0)
"""Weight of a straight edge: between two ends, between an end and a passing point, and between two passing points."""
MERGE = 20.0
"""Divisor of the weight at a target with several edges, in place of the climb."""


@dataclass(frozen=True)
class Node:
    """Size of a node: its width, and its extent above and below the height of its edges."""

    width: float
    above: float
    below: float


@dataclass(frozen=True)
class Edge:
    """An edge from a node to a later one (their numbers), and the size of the label that it runs through.

    With the size of a `name`, its line begins at the source's name next to the target, not at the source.
    """

    source: int
    target: int
    label: Node
    name: Node | None = None


@dataclass(frozen=True)
class Route:
    """Path of an edge.

    Attributes
    ----------
    points : list of (float, float)
        From the border of the source's column to that of the target's, bends and straight pieces in turn.
    label : (float, float)
        Center of the label.
    name : (float, float) or None
        Center of the source's name, for an edge that begins there.
    """

    points: list[tuple[float, float]]
    label: tuple[float, float]
    name: tuple[float, float] | None = None


@dataclass(frozen=True)
class Layout:
    """Size of a drawing, centers of its nodes, and routes of its edges."""

    width: float
    height: float
    nodes: list[tuple[float, float]]
    routes: list[Route]


def arrange(nodes: Sequence[Node], edges: Sequence[Edge]) -> Layout:
    """Compute the layout of nodes and edges.

    Parameters
    ----------
    nodes : sequence of Node
        Nodes in topological order.
    edges : sequence of Edge
        Edges, with those of one target in order from top to bottom.
    """
    chart = _Chart(_layers(len(nodes), edges), nodes, edges)
    effort = min(1.0, max(0.25, FULL / sum(map(len, chart.columns)))) if nodes else 1.0
    _reduce_crossings(chart.columns, round(ORDERINGS * effort))
    _choose_heights(chart.columns, round(HEIGHTS * effort))
    return chart.measure()


def long_edges(count: int, edges: Sequence[Edge]) -> list[bool]:
    """Return for each edge between `count` nodes whether it crosses more than `LONGEST` layers."""
    layers = _layers(count, edges)
    return [layers[edge.target] - layers[edge.source] > LONGEST for edge in edges]


@dataclass(eq=False)
class _Item:
    """An item of a column: a node or its name, an edge's label, or a point that edges pass."""

    room: Node
    kind: str
    left: list[_Link] = field(default_factory=list)
    right: list[_Link] = field(default_factory=list)
    place: int = 0
    y: float = 0.0


@dataclass(eq=False)
class _Link:
    """A piece of an edge between neighboring columns. `port`, -1/2 to 1/2, is its place among the edges of `end`."""

    start: _Item
    end: _Item
    port: float
    drop: float

    def pull(self, climb: float, near: float) -> float:
        """Return the weight of equal heights of both ends.

        The weight falls with the climb, which prefers a few sharp bends to many slight ones. At a target with several
        edges the weight is constant, which puts the node in their middle.
        """
        strength = STRAIGHTNESS[(self.start.kind == "point") + (self.end.kind == "point")]
        return strength / (climb + near if self.drop == 0 else MERGE)


class _Chart:
    """The columns of a layout: nodes in even columns, labels in odd ones."""

    def __init__(self, layers: list[int], nodes: Sequence[Node], edges: Sequence[Edge]) -> None:
        self.edges = edges
        self.layers = layers
        self.columns: list[list[_Item]] = [[] for _ in range(2 * max(layers, default=0) + 1)]
        self.nodes = [_Item(room, "node") for room in nodes]
        for item, layer in zip(self.nodes, layers, strict=True):
            self.columns[2 * layer].append(item)
        self.points: dict[tuple[int, int], _Item] = {}
        counts, slots = Counter(edge.target for edge in edges), Counter[int]()
        self.ways: list[list[_Item]] = []
        for edge in edges:
            self.ways.append(self._connect(edge, slots[edge.target], counts[edge.target]))
            slots[edge.target] += 1

    def _connect(self, edge: Edge, slot: int, count: int) -> list[_Item]:
        """Lay an edge to its target, as number `slot` of `count`, by points that its source's edges share."""
        last = 2 * self.layers[edge.target] - 1
        way = [self.nodes[edge.source]]
        if edge.name is not None:
            way = [_Item(edge.name, "node")]
            self.columns[last - 1].append(way[0])
        for column in range(self._start(edge) + 1, last):
            point = self.points.get((edge.source, column))
            if point is None:
                point = self.points[edge.source, column] = self._add(column, _Item(Node(0, 0, 0), "point"), way[-1])
            way.append(point)
        way.append(self._add(last, _Item(edge.label, "label"), way[-1]))
        step = min(PORTS, 2.5 * PORTS / count)
        link = _Link(way[-1], self.nodes[edge.target], (slot + 0.5) / count - 0.5, (slot - (count - 1) / 2) * step)
        link.start.right.append(link)
        link.end.left.append(link)
        way.append(self.nodes[edge.target])
        return way

    def _start(self, edge: Edge) -> int:
        """Return the column in which an edge begins."""
        return 2 * (self.layers[edge.source] if edge.name is None else self.layers[edge.target] - 1)

    def _add(self, column: int, item: _Item, start: _Item) -> _Item:
        link = _Link(start, item, 0.0, 0.0)
        start.right.append(link)
        item.left.append(link)
        self.columns[column].append(item)
        return item

    def measure(self) -> Layout:
        """Place the columns from left to right, and return the layout in coordinates."""
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
        routes = [self._route(edge, way, spans, top) for way, edge in zip(self.ways, self.edges, strict=True)]
        bottom = max((i.y + i.room.below for c in self.columns for i in c), default=0.0) - top + MARGIN
        return Layout(spans[-1][1] + MARGIN, bottom, places, routes)

    @staticmethod
    def _across(item: _Item, span: tuple[float, float]) -> float:
        """Return an item's x: at the right of its column without inputs, at the left without outputs, else centered."""
        if not item.left and item.right:
            return span[1] - item.room.width / 2
        if not item.right and item.left:
            return span[0] + item.room.width / 2
        return (span[0] + span[1]) / 2

    def _route(self, edge: Edge, way: list[_Item], spans: list[tuple[float, float]], top: float) -> Route:
        first = self._start(edge)
        points = [(spans[first][1], way[0].y - top)]
        for column, item in enumerate(way[1:-1], first + 1):
            points += [(spans[column][0], item.y - top), (spans[column][1], item.y - top)]
        drop = way[-2].right[0].drop
        column = first + len(way) - 1
        points.append((spans[column][0], way[-1].y - top + drop))
        name = None if edge.name is None else (self._across(way[0], spans[first]), way[0].y - top)
        return Route(points, (sum(spans[column - 1]) / 2, way[-2].y - top), name)


def _layers(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return each node's layer: the length of the longest path to it.

    A node without inputs stands in the layer before its first use. So does a node that would wait for it over more
    than `LONGEST` layers.
    """
    layers, has_inputs, targets = [0] * count, [False] * count, [list[int]() for _ in range(count)]
    for edge in sorted(edges, key=lambda edge: edge.target):
        if not 0 <= edge.source < edge.target < count:
            raise ValueError(f"an edge must lead from a node to a later one, got {edge.source} -> {edge.target}")
        layers[edge.target] = max(layers[edge.target], layers[edge.source] + 1)
        has_inputs[edge.target] = True
        targets[edge.source].append(edge.target)
    for node in reversed(range(count)):
        latest = min((layers[target] for target in targets[node]), default=layers[node] + 1) - 1
        if not has_inputs[node] or latest - layers[node] >= LONGEST:
            layers[node] = latest
    return layers


def _gap(column: list[_Item]) -> float:
    """Return the width of the gap to the right of a column: more if an edge climbs further, so that none is steep."""
    climb = max((abs(link.end.y + link.drop - item.y) for item in column for link in item.right), default=0.0)
    return min(16.0 + 0.22 * climb, 90.0)


def _reduce_crossings(columns: list[list[_Item]], sweeps: int) -> None:
    """Sort each column by its neighbors' places, backward and forward in turn, and keep the best order."""
    _number(columns)
    best: list[list[_Item]] = []
    fewest = -1
    for sweep in range(sweeps):
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


def _sort(column: list[_Item], neighbors: Callable[[_Item], list[float]]) -> None:
    keys = {item: _mean(neighbors(item), item.place) for item in column}
    column.sort(key=keys.__getitem__)
    _number([column])


def _mean(numbers: list[float], default: float) -> float:
    return sum(numbers) / len(numbers) if numbers else default


def _crossings(column: list[_Item]) -> int:
    """Count the crossings between a column and the next one: the inversions among the ends of its edges."""
    met = sorted((item.place, link.end.place + link.port) for item in column for link in item.right)
    count, seen = 0, list[float]()
    for _, place in met:
        count += len(seen) - bisect.bisect_right(seen, place)
        bisect.insort(seen, place)
    return count


def _choose_heights(columns: list[list[_Item]], sweeps: int) -> None:
    """Choose the heights of items that make edges straight, without overlap.

    The first third of the sweeps goes forward and backward in turn, to bring items near their places. The others use
    both neighbors.
    """
    for column in columns:
        _settle(column, [(0.0, 1.0)] * len(column))
    for sweep in range(sweeps):
        forward, both = sweep % 2 == 0, sweep >= sweeps // 3
        near = max(8.0 * 0.85 ** (sweep * HEIGHTS / sweeps), 0.05)  # the last sweeps straighten what is nearly straight
        for column in columns if forward else reversed(columns):
            _settle(column, [_wish(item, forward or both, both or not forward, near) for item in column])


def _wish(item: _Item, by_left: bool, by_right: bool, near: float) -> tuple[float, float]:
    """Return an item's preferred height, the weighted mean of its neighbors', and its weight."""
    total = weights = 0.0
    for link, y in [(link, link.start.y - link.drop) for link in item.left if by_left] + [
        (link, link.end.y + link.drop) for link in item.right if by_right
    ]:
        weight = link.pull(abs(y - item.y), near)
        total += weight * y
        weights += weight
    return (total / weights, weights) if weights else (item.y, 1e-3)


def _settle(column: list[_Item], wishes: list[tuple[float, float]]) -> None:
    """Set the heights nearest to the preferred ones that keep order and distances (isotonic regression)."""
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
