"""Pictures of graphs: the numbers on them are the graph's, and nothing covers anything."""

import operator
import re
import sys
import unicodedata
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from xpnet.examples import EXAMPLES, build
from xpnet.graph import Graph, Input
from xpnet.graph.labels import number_text, quantity, text_width
from xpnet.graph.layout import Edge, Node, arrange, long_edges
from xpnet.layers import Affine, Layer, Relu

SVG = "{http://www.w3.org/2000/svg}"


def edges_of(graph):
    """Read a picture: what stands above and below each edge, by the numbers of its two ends and its place there."""
    found = {}
    for edge in ElementTree.fromstring(graph.to_svg()).iter(f"{SVG}g"):
        if edge.get("class") == "edge":
            texts = {text.get("class"): "".join(text.itertext()) for text in edge.iter(f"{SVG}text")}
            key = tuple(int(edge.get(f"data-{name}")) for name in ("source", "target", "slot"))
            found[key] = texts.get("value"), texts.get("grad")
    return found


def by_name(graph):
    """Read what stands on the edges out of the inputs."""
    return {graph.names[graph.values[source]]: texts for (source, _, _), texts in edges_of(graph).items()}


def test_the_apples_of_the_book():
    graph = build("apple")
    assert by_name(graph) == {
        "apple": ("100", "2.2"),
        "apple_num": ("2", "110"),
        "apple_price": ("200", "1.1"),
        "tax": ("1.1", "200"),
        "price": ("220", "1"),
    }


def test_the_apples_and_oranges_of_the_book():
    assert by_name(build("apple-orange")) == {
        "apple": ("100", "2.2"),
        "apple_num": ("2", "110"),
        "apple_price": ("200", "1.1"),
        "orange": ("150", "3.3"),
        "orange_num": ("3", "165"),
        "orange_price": ("450", "1.1"),
        "all_price": ("650", "1.1"),
        "tax": ("1.1", "650"),
        "price": ("715", "1"),
    }


def test_the_sigmoid_of_the_book():
    texts = by_name(build("sigmoid"))
    assert texts["y"] == ("0.6225", "1")
    assert texts["x"] == ("0.5", "0.235")  # y (1 - y)


def test_the_scores_of_softmax_get_y_minus_t():
    graph = build("softmax")
    values = {graph.names[value]: value for value in graph.values}
    for k, t in ((1, 0), (2, 1), (3, 0)):
        y = float(values[f"y{k}"].value)
        assert float(values[f"a{k}"].grad) == pytest.approx(y - t)
        assert by_name(graph)[f"a{k}"][1] == number_text(y - t)


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_numbers_on_the_edges_are_those_of_the_graph(device, example):
    graph = build(example, device)
    for (source, target, slot), (above, below) in edges_of(graph).items():
        start = graph.values[source]
        if target == len(graph.values):
            grad = graph.output.grad
        else:
            grads = graph.values[target].input_grads
            grad = grads[slot] if slot < len(grads) else None
        if above is not None:
            assert above == " ".join(quantity(start.value).lines)
        if below is not None:
            assert below == " ".join(quantity(grad).lines)
        assert (above is None) == (start.layer is None and not isinstance(start, Input))


def test_edges_of_one_value_show_what_each_brings_back():
    x = Input("x", 3.0)
    graph = Graph(x * x + x)
    graph.forward()
    graph.backward()
    brought = sorted(below for (source, _, _), (_, below) in edges_of(graph).items() if graph.values[source] is x)
    assert brought == ["1", "3", "3"]
    assert x.grad == 7
    assert ">in all 7<" in graph.to_svg()


def test_before_forward_there_are_no_numbers_but_the_inputs():
    x, y = Input("x", 2.0), Input("y")
    graph = Graph(x * y)
    assert by_name(graph) == {"x": ("2", None), "y": (None, None), "MulLayer1": (None, None)}
    assert "derivatives:" not in graph.to_svg()
    graph.forward(y=3.0)
    assert by_name(graph) == {"x": ("2", None), "y": ("3", None), "MulLayer1": ("6", None)}
    graph.backward()
    assert by_name(graph) == {"x": ("2", "3"), "y": ("3", "2"), "MulLayer1": ("6", "1")}


def test_after_another_forward_the_old_derivatives_are_gone():
    graph = build("apple")
    graph.forward(tax=1.2)
    assert by_name(graph)["price"] == ("240", None)
    assert by_name(graph)["apple"] == ("100", None)


def test_layers_are_boxes_with_their_parameters(rng):
    affine = Affine(rng.random((4, 3)), rng.random(3))
    picture = Graph(Relu()(affine(Input("x", rng.random((2, 4)))))).to_svg()
    for text in ("Affine1", "Relu1", "W (4, 3)", "b (3,)"):
        assert f">{text}</text>" in picture


def test_odd_names_do_no_harm():
    name = "<b>&\"'\x00\n</script><script>alert(1)</script>"
    x = Input(name, 2.0)
    graph = Graph((x * 3).exp())
    graph.output.name = "</svg>"
    graph.forward()
    graph.backward()
    ElementTree.fromstring(graph.to_svg())
    page = graph.to_html()
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert page.count("</svg>") == 1


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


def test_what_xml_forbids_is_shown_as_replaced():
    graph = Graph(Input("\ud800", 1.0) * 2)
    assert ">\ufffd</text>" in graph.to_svg()
    assert ">\ufffd</text>" in graph.to_html()
    assert graph.forward(**{"\ud800": 3.0}) == 6.0


def test_a_layer_of_ones_own_is_a_box_that_speaks_through_its_docstring():
    class Twice(Layer):
        """Doubles, y = 2 x.

        dx = 2 dout.

        Not said.
        """

        def forward(self, x, train=True):
            return 2 * x

        def backward(self, dout):
            return 2 * dout

    graph = Graph(Twice()(Input("x", 1.0)))
    graph.forward()
    page = graph.to_html()
    assert "Doubles, y = 2 x. dx = 2 dout." in page
    assert "Not said" not in page
    assert '"editable": false' in page


def test_the_picture_says_in_words_what_it_shows():
    picture = ElementTree.fromstring(build("apple").to_svg())
    assert picture.get("role") == "img"
    assert picture.find(f"{SVG}title").text == "price, computed from apple, apple_num and tax"
    said = picture.find(f"{SVG}desc").text
    assert "apple_price = apple \u00d7 apple_num = 100 \u00d7 2 = 200" in said
    assert "Backward, from 1 at price, the derivatives: apple 2.2; apple_num 110; tax 200." in said


def test_notebooks_show_the_picture():
    graph = build("apple")
    assert graph.to_svg() in graph._repr_html_()
    assert graph.output._repr_html_() == graph._repr_html_()
    assert "<svg" in Input("x")._repr_html_()


def test_pictures_and_pages_need_no_network():
    for text in (build("two-layer").to_svg(), build("softmax").to_html()):
        addresses = set(re.findall(r"https?://[^\s\"'<)]+|url\([^)]*\)|@import|src=", text))
        assert addresses == {"http://www.w3.org/2000/svg"}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (220.00000000000003, "220"),
        (0.66820, "0.6682"),
        (-0.5, "\u22120.5"),
        (1000.5, "1001"),
        (12345.6, "12346"),
        (999999.4, "999999"),
        (1234567.0, "1.235e6"),
        (0.00012346, "0.0001235"),
        (0.000012346, "1.235e\u22125"),
        (9999.96, "10000"),
        (999999.7, "1e6"),
        (0.0, "0"),
        (-0.0, "0"),
        (float("nan"), "NaN"),
        (float("-inf"), "\u2212\u221e"),
        (5e-324, "4.941e\u2212324"),
    ],
)
def test_numbers_have_four_digits_and_no_dust(number, text):
    assert number_text(number) == text


@pytest.mark.parametrize(
    ("array", "lines"),
    [
        (np.full((100, 50), 0.12, "float32"), ("(100, 50)", "mean 0.12 norm 8.5")),
        (np.array([0.3, 2.9, 4.0]), ("[0.3, 2.9, 4]",)),
        (np.arange(7), ("(7,)",)),
        (np.zeros((0, 3)), ("(0, 3)",)),
        (np.float32(2.5), ("2.5",)),
        (np.array([1, -1, 1, -1, 3e-16]), ("(5,)", "mean 0 norm 2")),
        (10**400, ("1" + "0" * 22 + "\u2026",)),
        (np.full(5, np.nan), ("(5,)", "mean NaN norm NaN")),
    ],
)
def test_arrays_are_shape_mean_and_norm(array, lines):
    assert quantity(array).lines == lines


def test_a_wide_letter_counts_as_wide():
    assert text_width("りんご", 10) == 30 > text_width("abc", 10) > text_width("...", 10)


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


def test_a_drawing_is_the_same_every_time():
    assert build("softmax").to_svg() == build("softmax").to_svg()


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


def test_an_unknown_example_names_those_there_are():
    with pytest.raises(ValueError, match=r"name must be one of apple, .*, lstm, got 'x'"):
        build("x")
