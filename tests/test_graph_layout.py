"""Layouts of large graphs: the work that a drawing takes, what is refused, and edges over many columns."""

import operator
import sys
from xml.etree import ElementTree

import pytest
from test_graph_drawing import SVG

from xpnet.graph import Graph, Input
from xpnet.graph.layout import Edge, Node, arrange
from xpnet.layers import Relu


def chain(n):
    value = Input("x", 0.0)
    for _ in range(n):
        value = value + 1
    return value


def ladder(n):
    """Each step waits for its turn: all are computed from x alone."""
    x = Input("x", 0.0)
    value = x * 1.0
    for _ in range(n):
        value = value + x * 2.0
    return value


def skipping(n, over=16):
    values = [Input("x", 0.0)] * over
    for _ in range(n):
        values.append(Relu()(values[-1]) + values[-over])
    return values[-1]


def nested(n):
    """The first step's result is used last."""
    values = [Input("x", 0.0)]
    for _ in range(n):
        values.append(Relu()(values[-1]))
    value = values[-1]
    for other in reversed(values[:-1]):
        value = value + other
    return value


def wide(n):
    x = Input("x", 0.0)
    values = [x * float(i) for i in range(n)]
    while len(values) > 1:
        values = [*map(operator.add, values[::2], values[1::2]), *values[len(values) & ~1 :]]
    return values[0]


def shared(n):
    """An input with a use in each of many nodes, and a derivative from each."""
    output = wide(n)
    output.forward()
    output.backward()
    return output


def calls_of(function):
    """Count the calls, of Python and of C, within a call."""
    count = 0

    def hook(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(hook)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("made_by", [chain, ladder, skipping, nested, wide, shared])
def test_twice_the_graph_takes_twice_the_work(made_by):
    small, large = (Graph(made_by(n)) for n in (32, 64))
    assert calls_of(large.to_svg) < 2.4 * calls_of(small.to_svg)
    assert len(large.to_svg()) < 2.4 * len(small.to_svg())
    assert calls_of(large.to_html) < 2.4 * calls_of(small.to_html)


def test_a_node_of_many_inputs_takes_its_share_of_work():
    def drawn(n):
        edges = [Edge(source, n, Node(60, 20, 20)) for source in range(n)]
        return calls_of(lambda: arrange([Node(42, 21, 21)] * (n + 1), edges))

    assert drawn(400) < 2.4 * drawn(200)


def test_a_long_edge_begins_at_its_sources_name():
    output = nested(20)
    Graph(output).values[1].name = "first"
    graph = Graph(output)
    picture = ElementTree.fromstring(graph.to_svg())
    lines = {
        (int(edge.get("data-source")), int(edge.get("data-target"))): [
            text.text for text in edge.iter(f"{SVG}text") if text.get("class") == "name"
        ]
        for edge in picture.iter(f"{SVG}g")
        if edge.get("class") == "edge"
    }
    last = len(graph.values) - 1
    assert lines[0, last] == ["x"]
    assert lines[1, last - 1] == ["first"]
    assert lines[0, 1] == lines[last - 1, last] == []
    named = {name for names in lines.values() for name in names}
    said = [text.text for text in picture.iter(f"{SVG}text")]
    assert all(said.count(name) >= 2 for name in named)  # there, and at the source


def test_a_graph_that_nobody_could_look_at_is_refused():
    value = chain(2_000)
    value.forward()
    for draw in (Graph(value).to_svg, Graph(value).to_html):
        with pytest.raises(ValueError, match="at most 5,000 values and links, this graph has 8,001; draw a part of it"):
            draw()
    assert "at most 5,000 values and links" in value._repr_html_()


def test_a_graph_deeper_than_the_stack_is_drawn():
    value = Input("x", 0.0)
    for _ in range(1100):
        value = value + 1
    graph = Graph(value)
    assert graph.forward() == 1100
    assert ">1100<" in graph.to_svg()


def test_edges_must_lead_to_later_nodes():
    with pytest.raises(ValueError, match="an edge must lead from a node to a later one, got 1 -> 0"):
        arrange([Node(1, 1, 1)] * 2, [Edge(1, 0, Node(1, 1, 1))])
