"""What holds for any graph: its gradients, its copies, its picture, and the networks made of its layers."""

import unicodedata
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from test_graph import COPIES
from test_graph_drawing import SVG
from test_graph_networks import affine

from xpnet.gradient import numerical_gradient
from xpnet.graph import Graph, Input
from xpnet.graph.layout import Edge, Node, arrange, long_edges
from xpnet.layers import BatchNormalization, Layer, Sigmoid, SoftmaxWithLoss
from xpnet.nets import GraphNetwork
from xpnet.optimizers import SGD

# No composition of six grows or bends fast: central differences of its results are good to 1e-6.
OPERATIONS = [
    lambda a, b: a + b,
    lambda a, b: a - b,
    lambda a, b: a * b / (a * a + b * b + 1),
    lambda a, b: a / (b * b + 1.5),
    lambda a, b: (a * a + 1) ** (0.5 / (b * b + 1)),
    lambda a, b: (-0.3 * a * a - b * b / (a * a + 1)).exp(),
    lambda a, b: (a * a + b * b + 1.0).log(),
    lambda a, b: a - b.mean(axis=0),
    lambda a, b: -a - 1 + b.sum() / 6,
    lambda a, b: 2 ** (a / (a * a + 1)) + 1 / (b * b + 1) - (1 - a),
    lambda a, b: Sigmoid()(a) + b,
]


PROGRAMS = st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0), st.integers(0)), min_size=1, max_size=6)


def run_program(program, values):
    """Append the results of operations on any earlier values."""
    for operation, i, j in program:
        values.append(operation(values[i % len(values)], values[j % len(values)]))
    return values


@given(PROGRAMS)
def test_gradients_of_any_graph_are_those_of_central_differences(program):
    """Values are used any number of times; their gradients are added."""
    rng = np.random.default_rng(0)
    x, y = Input("x", rng.uniform(0.5, 1, (2, 3))), Input("y", rng.uniform(0.5, 1, (2, 3)))
    values = run_program(program, [x, y])
    loss = (values[-1] * 0.01).mean() + (x * y).sum()
    loss.forward()
    loss.backward()
    for value in (x, y):
        gradient = value.grad.copy()
        expected = numerical_gradient(lambda _: loss.forward(), value.value, 1e-5)
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-8)


@COPIES
@given(program=PROGRAMS, order=st.randoms(use_true_random=False))
def test_a_copy_of_any_graph_computes_the_same_and_is_its_own(made_by, program, order):
    rng = np.random.default_rng(0)
    values = run_program(program, [Input(name, rng.uniform(0.5, 1, (2, 3))) for name in "xy"])
    places = list(range(len(values)))
    order.shuffle(places)
    moved = made_by([values[place] for place in places])
    made = [moved[places.index(place)] for place in range(len(values))]
    assert [one.inputs for one in made[:2]] == [(), ()]
    known = set(made)
    for mine, its in zip(made, values, strict=True):
        together = [(a in known, b in values) for a, b in zip(mine.inputs, its.inputs, strict=True)]
        assert all(a == b for a, b in together)
        assert mine is not its
        assert mine.layer is not its.layer or its.layer is None
    with np.errstate(over="ignore", invalid="ignore"):  # powers of powers, the same in both
        for output in (values[-1], made[-1]):
            output.forward()
            output.backward(np.ones(np.shape(output.value)))
    for mine, its in zip(made, values, strict=True):
        assert mine.has_grad == its.has_grad
        if its.has_grad:
            np.testing.assert_array_equal(mine.grad, its.grad)


class TestNetwork:
    @given(
        tried=st.lists(st.sampled_from(["first", "norm", "last", "loss"]), max_size=6),
        twice=st.booleans(),
        kept=st.booleans(),
    )
    def test_applications_outside_the_network_change_nothing(self, tried, twice, kept):
        """A notebook cell that is run again applies its layers again."""

        def network(tried):
            layers = {
                "first": affine(6, 6, 1),
                "norm": BatchNormalization(np.ones(6), np.zeros(6)),
                "last": affine(6, 3),
            }
            loss, x, t = SoftmaxWithLoss(), Input("x"), Input("t")
            tries = [loss(x, t) if name == "loss" else layers[name](x) for name in tried]
            first, norm, last = layers.values()
            h = norm(first(x))
            h = norm(first(h)) if twice else h
            return GraphNetwork(loss(last(h), t)), tries if kept else None

        rng = np.random.default_rng(0)
        x, t = rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
        (fresh, _), (again, _) = network([]), network(tried)
        for net in (fresh, again):
            net.compile(SGD(0.1), 4).run(x, t, np.arange(8).reshape(2, 4))
        np.testing.assert_array_equal(again.gradient(x, t).flat, fresh.gradient(x, t).flat)
        np.testing.assert_array_equal(again.predict(x), fresh.predict(x))


@given(st.text(min_size=1, max_size=8), st.text(max_size=8), st.text(max_size=8), st.booleans())
@example("\ud800", "\udfff", "\x00", True)
@example("\ufffe", "\x0b", "\ud800", False)
def test_any_name_makes_a_file_that_a_reader_accepts(name, output, doc, is_run):
    class Own(Layer):
        parameter_names = (f"W{name}",)

        def __init__(self):
            setattr(self, f"W{name}", np.ones(2))

        def forward(self, x, train=True):
            return 2 * x

        def backward(self, dout):
            setattr(self, f"dW{name}", np.ones(2))
            return 2 * dout

    Own.__doc__ = doc
    middle = Own()(Input(name, 2.0)) * 3
    graph = Graph(Own()(middle))
    middle.name, graph.output.name = output, name
    if is_run:
        graph.forward()
        graph.backward()
    svg, page = graph.to_svg().encode(), graph.to_html().encode()
    picture = ElementTree.fromstring(svg)
    if not all(c.isspace() or unicodedata.category(c) == "Cf" for c in name):
        assert all(text.text.strip() for text in picture.iter(f"{SVG}text") if text.get("class") == "name")
    ElementTree.fromstring(page[page.index(b"<svg") : page.index(b"</svg>") + 6])


@st.composite
def drawings(draw):
    """Draw rooms for nodes, and edges that lead from nodes to later ones, some of them twice, some of them long."""
    sizes = st.floats(0, 90)
    nodes = st.builds(Node, sizes, sizes, sizes)
    rooms = draw(st.lists(nodes, min_size=1, max_size=14))
    length = draw(st.sampled_from([0, 0, 20]))
    row = [Node(40, 20, 20)] * length
    edges = [Edge(i, i + 1, row[i]) for i in range(length - 1)]
    rooms = [*row, *rooms]
    for target in range(max(1, length), len(rooms)):
        for source in draw(st.lists(st.integers(0, target - 1), max_size=4)):
            edges.append(Edge(source, target, draw(nodes)))
    far = long_edges(len(rooms), edges)
    return rooms, [replace(edge, name=draw(nodes)) if is_far else edge for edge, is_far in zip(edges, far, strict=True)]


def rectangle(room, place):
    x, y = place
    return x - room.width / 2, y - room.above, x + room.width / 2, y + room.below


def overlap(a, b, slack=1e-6):
    return min(a[2], b[2]) - max(a[0], b[0]) > slack and min(a[3], b[3]) - max(a[1], b[1]) > slack


@given(drawings())
def test_nothing_overlaps_and_edges_go_from_left_to_right(drawing):
    rooms, edges = drawing
    layout = arrange(rooms, edges)
    nodes = [rectangle(room, place) for room, place in zip(rooms, layout.nodes, strict=True)]
    labels = [rectangle(edge.label, route.label) for edge, route in zip(edges, layout.routes, strict=True)]
    pairs = list(zip(edges, layout.routes, strict=True))
    names = [(rectangle(edge.name, route.name), route.points[0]) for edge, route in pairs if edge.name]
    assert all(name[2] <= start[0] + 1e-6 for name, start in names)
    things = nodes + labels + [name for name, _ in names]
    assert [(a, b) for i, a in enumerate(things) for b in things[:i] if overlap(a, b)] == []
    for left, top, right, bottom in things:
        assert left >= 0
        assert top >= 0
        assert right <= layout.width
        assert bottom <= layout.height
    for number, (edge, route) in enumerate(zip(edges, layout.routes, strict=True)):
        across = [x for x, _ in route.points]
        assert across == sorted(across)
        assert nodes[edge.source][2] <= across[0] + 1e-6
        assert across[-1] <= nodes[edge.target][0] + 1e-6 or edge.target in {other.source for other in edges}
        own = len(nodes) + number
        for (x0, y0), (x1, y1) in zip(route.points[1:-1:2], route.points[2:-1:2], strict=True):
            assert y0 == y1
            run = (x0, y0 - 0.1, x1, y1 + 0.1)
            crossed = [i for i, thing in enumerate(things) if i != own and overlap(run, thing)]
            assert crossed == []


@given(drawings())
def test_bends_lie_in_the_gaps_between_columns(drawing):
    rooms, edges = drawing
    layout = arrange(rooms, edges)
    things = [rectangle(room, place) for room, place in zip(rooms, layout.nodes, strict=True)]
    things += [rectangle(edge.label, route.label) for edge, route in zip(edges, layout.routes, strict=True)]
    for route in layout.routes:
        for (x0, _), (x1, _) in zip(route.points[::2], route.points[1::2], strict=True):
            gap = (x0, -1e9, x1, 1e9)
            assert not any(overlap(gap, thing) for thing in things)
