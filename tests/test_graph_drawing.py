"""Pictures of graphs: the numbers on them are the graph's, and names do no harm."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from xpnet.examples import EXAMPLES, build
from xpnet.graph import Graph, Input
from xpnet.graph.labels import number_text, quantity, text_width
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


def test_a_drawing_is_the_same_every_time():
    assert build("softmax").to_svg() == build("softmax").to_svg()


def test_an_unknown_example_names_those_there_are():
    with pytest.raises(ValueError, match=r"name must be one of apple, .*, lstm, got 'x'"):
        build("x")
