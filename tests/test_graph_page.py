"""The page of a graph, in a browser: its steps, its numbers, and what happens when an input is changed."""

import re
from pathlib import Path

import numpy as np
import pytest

from xpnet import layers
from xpnet.examples import build
from xpnet.graph import Graph, Input, rules
from xpnet.graph.labels import number_text
from xpnet.layers import Affine, Loss, Relu, Sigmoid, Silu, Softplus, Tanh


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a graph's page, and hold it to having no error and asking for nothing but itself."""
    pages, errors, requests = [], [], []

    def call(graph, width=1200, height=900, **settings):
        file = tmp_path / f"{len(pages)}.html"
        file.write_text(graph.to_html(), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": height}, **settings)
        pages.append(page)
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        return page

    yield call
    for page in pages:
        page.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file://", "data:"))] == []


def shown(page):
    """Read what can be seen above and below the edges: by the numbers of their two ends and the place there."""
    return {
        tuple(key): (value, grad)
        for key, value, grad in page.evaluate(
            """() => [...document.querySelectorAll(".edge")].map((edge) => {
                const seen = (text) => (text && !text.classList.contains("pending") ? text.textContent : null);
                const { source, target, slot } = edge.dataset;
                const key = [source, target, slot].map(Number);
                return [key, seen(edge.querySelector(".value")), seen(edge.querySelector(".grad"))];
            })"""
        )
    }


def on_edges(page, graph):
    return {graph.names[graph.values[source]]: texts for (source, _, _), texts in shown(page).items()}


def grads_in_table(page):
    return {row.split()[0]: row.split()[-1] for row in page.locator("#inputs tr").all_inner_texts()}


def test_the_page_opens_with_all_numbers(open_page):
    graph = build("apple-orange")
    page = open_page(graph)
    assert on_edges(page, graph) == {
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
    assert page.title() == "price, computed from apple, apple_num, orange, orange_num and tax"


def test_the_keyboard_steps_forward_then_backward(open_page):
    graph = build("apple")
    page = open_page(graph)
    inputs = {"apple": ("100", None), "apple_num": ("2", None), "tax": ("1.1", None)}
    page.keyboard.press("Home")
    assert on_edges(page, graph) == {**inputs, "apple_price": (None, None), "price": (None, None)}
    status = page.locator("#step[aria-live=polite]")

    page.keyboard.press("ArrowRight")
    assert on_edges(page, graph) == {**inputs, "apple_price": ("200", None), "price": (None, None)}
    assert status.inner_text() == ("Forward, node \u00d7: apple_price = apple \u00d7 apple_num = 100 \u00d7 2 = 200.")
    page.keyboard.press("ArrowRight")
    assert on_edges(page, graph)["price"] == ("220", None)
    page.keyboard.press("ArrowRight")
    assert on_edges(page, graph)["price"] == ("220", "1")
    assert "dout = 1" in status.inner_text()
    page.keyboard.press("ArrowRight")
    assert on_edges(page, graph)["apple_price"] == ("200", "1.1")
    assert on_edges(page, graph)["tax"] == ("1.1", "200")
    rows = [row.split() for row in page.locator("#inputs tr").all_inner_texts()]
    assert rows == [["apple"], ["apple_num"], ["tax", "200"]]
    assert on_edges(page, graph)["apple"] == ("100", None)
    assert "apple_price gets dout \u00d7 y = 1 \u00d7 1.1 = 1.1" in status.inner_text()
    page.keyboard.press("ArrowRight")
    assert on_edges(page, graph)["apple"] == ("100", "2.2")
    assert page.locator("#progress").inner_text() == "Step 5 of 5"
    page.keyboard.press("ArrowLeft")
    assert on_edges(page, graph)["apple"] == ("100", None)
    page.keyboard.press("End")
    page.keyboard.press("ArrowRight")  # from the end to the beginning
    assert page.locator("#progress").inner_text() == "Step 0 of 5"


def test_buttons_step_too_and_play_goes_to_the_end(open_page):
    graph = build("apple")
    page = open_page(graph)
    page.clock.install()
    page.get_by_role("button", name="Start").click()
    assert page.get_by_role("button", name="Back").is_disabled()
    page.get_by_role("button", name="Next").click()
    assert on_edges(page, graph)["apple_price"] == ("200", None)
    page.get_by_role("button", name="Play").click()
    page.clock.run_for(20_000)
    assert on_edges(page, graph)["apple"] == ("100", "2.2")
    assert page.get_by_role("button", name="Play").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert page.locator("#step").inner_text().startswith("All is computed: price = 220.")


def test_a_node_shows_its_local_rule_when_pointed_at_and_when_focused(open_page):
    page = open_page(build("apple"))
    rule = page.locator("#rule")
    first, last = page.locator(".node.operation").all()
    first.hover()
    text = rule.inner_text()
    assert "x: apple, y: apple_num, z: apple_price" in text
    assert "z = x \u00d7 y = 100 \u00d7 2 = 200" in text
    assert "dx = dout \u00d7 y = 1.1 \u00d7 2 = 2.2" in text
    assert "dy = dout \u00d7 x = 1.1 \u00d7 100 = 110" in text
    last.focus()
    assert "dy = dout \u00d7 x = 1 \u00d7 200 = 200" in rule.inner_text()


def test_layers_show_their_rule_and_the_derivatives_of_their_parameters(open_page):
    page = open_page(build("two-layer"))
    page.locator(".node.layer").first.focus()
    text = page.locator("#rule").inner_text()
    assert "y = x W + b = (3, 784) (784, 50) + (50,) = (3, 50) mean" in text
    assert "dW = x\u1d40 dout = (3, 784)\u1d40 (3, 50) = (784, 50) mean" in text
    assert "db = " in text
    assert page.locator("#inputs input").count() == 0


def test_changing_an_input_computes_both_passes_again(open_page):
    graph = build("apple-orange")
    page = open_page(graph)
    page.get_by_label("tax", exact=True).fill("1.2")
    graph.forward(tax=1.2)
    graph.backward()
    expected = {
        graph.names[value]: (number_text(float(value.value)), number_text(float(value.grad))) for value in graph.values
    }
    assert on_edges(page, graph) == expected
    assert expected["price"] == ("780", "1")
    assert grads_in_table(page) == {name: expected[name][1] for name in graph.inputs}
    assert page.locator("#step").inner_text() == "tax = 1.2: price = 780."
    page.get_by_role("button", name="Restore").click()
    assert on_edges(page, graph)["price"] == ("715", "1")
    assert page.get_by_label("tax", exact=True).input_value() == "1.1"


def test_long_edges_are_computed_again_too(open_page):
    x = Input("x", 2.0)
    value = x
    for _ in range(20):
        value = value * 0.5 + x
    graph = Graph(value)
    graph.forward()
    graph.backward()
    page = open_page(graph)
    page.get_by_label("x", exact=True).fill("3")
    graph.forward(x=3.0)
    graph.backward()
    for (source, target, slot), (above, below) in shown(page).items():
        if above is not None:
            grad = graph.output.grad if target == len(graph.values) else graph.values[target].input_grads[slot]
            assert (above, below) == (number_text(graph.values[source].value), number_text(grad))
    page.keyboard.press("Home")
    for _ in range(90):
        page.keyboard.press("ArrowRight")


def all_rules(x, y):
    """Every operator and layer that takes numbers, each used once."""
    made = (x + y) * (x - y) / (x**y) + x.exp() + y.log()
    made = made + Relu()(x) + Relu()(x * -1) + Sigmoid()(y) + Sigmoid()(x * -40)
    made = made + Tanh()(x) + Softplus()(x - y) + Softplus()(x * -40) + Silu()(y - x) + Silu()(x * -40)
    return made + x.sum() * y.mean() + y.max()


@pytest.mark.parametrize(("new_x", "new_y"), [(2.5, 0.75), (1e-3, 3.0), (12.0, 1.0)])
def test_the_page_knows_the_rules_that_python_knows(open_page, new_x, new_y):
    x, y = Input("x", 1.5), Input("y", 2.0)
    graph = Graph(all_rules(x, y))
    graph.forward()
    graph.backward()
    page = open_page(graph)
    page.get_by_label("x", exact=True).fill(str(new_x))
    page.get_by_label("y", exact=True).fill(str(new_y))
    in_page = shown(page)
    graph.forward(x=new_x, y=new_y)
    graph.backward()
    for (source, target, slot), (above, below) in in_page.items():
        start, end = graph.values[source], None if target == len(graph.values) else graph.values[target]
        grad = graph.output.grad if end is None else end.input_grads[slot]
        if above is not None:  # constants show nothing
            assert above == number_text(float(start.value))
            assert below == number_text(float(grad))


def test_the_page_computes_what_python_says_that_it_computes():
    script = (Path(rules.__file__).parent / "page.js").read_text(encoding="utf-8")
    in_page = re.search(r"const RULES = {(.*?)\n};", script, re.DOTALL)[1]
    scalar = {layer.__name__ for layer, rule in rules.RULES.items() if rule.is_scalar}
    classes = [getattr(layers, name) for name in layers.__all__]
    scalar |= {layer.__name__ for layer in classes if layer.formula is not None and layer.formula.is_scalar}
    assert set(re.findall(r"^  (\w+):", in_page, re.MULTILINE)) == scalar


def test_a_rule_says_what_becomes_of_each_input():
    for layer, rule in rules.RULES.items():
        labels = issubclass(layer, Loss)  # which get no derivative
        assert (len(rule.operands), len(rule.backward)) == (layer.inputs, layer.inputs - labels), layer


def test_not_a_number_and_infinity_are_shown_as_such(open_page):
    graph = Graph(Input("x", 2.0).log() / Input("y", 1.0))
    graph.forward()
    graph.backward()
    page = open_page(graph)
    page.get_by_label("x", exact=True).fill("-1")
    assert on_edges(page, graph)["LogLayer1"][0] == "NaN"
    page.get_by_label("x", exact=True).fill("0")
    assert on_edges(page, graph)["LogLayer1"][0] == "\u2212\u221e"
    assert on_edges(page, graph)["x"] == ("0", "\u221e")


def test_not_a_number_and_infinity_come_from_python_too(open_page):
    graph = Graph(Input("x", float("inf")) - Input("y", float("inf")))
    graph.forward()
    graph.backward()
    page = open_page(graph)
    assert on_edges(page, graph) == {"x": ("\u221e", "1"), "y": ("\u221e", "\u22121"), "SubLayer1": ("NaN", "1")}


@pytest.mark.parametrize("typed", ["", "e", "-"])
def test_what_is_no_number_is_flagged_and_changes_nothing(open_page, typed):
    graph = build("apple")
    page = open_page(graph)
    field = page.get_by_label("tax", exact=True)
    field.fill("")
    field.type(typed)
    assert field.get_attribute("aria-invalid") == "true"
    assert page.get_by_text("Enter a number.").is_visible()
    assert on_edges(page, graph)["price"] == ("220", "1")
    field.fill("2")
    assert field.get_attribute("aria-invalid") == "false"
    assert not page.get_by_text("Enter a number.").is_visible()
    assert on_edges(page, graph)["price"] == ("400", "1")


def test_keys_in_a_field_do_not_step(open_page):
    page = open_page(build("apple"))
    page.get_by_label("tax", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Home")
    assert page.locator("#progress").inner_text() == "Step 5 of 5"


@pytest.mark.parametrize("example", ["apple-orange", "softmax", "two-layer"])
@pytest.mark.parametrize("width", [320, 360, 1600])
def test_the_page_never_scrolls_sideways(open_page, example, width):
    page = open_page(build(example), width)
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("window.scrollX") == 0


def test_the_step_is_brought_into_view_on_a_narrow_screen(open_page):
    page = open_page(build("softmax"), 360, reduced_motion="reduce")
    page.keyboard.press("Home")
    for _ in range(17):
        page.keyboard.press("ArrowRight")
    frame, node = page.locator("#drawing").bounding_box(), page.locator(".node.forward").bounding_box()
    assert frame["x"] <= node["x"]
    assert node["x"] + node["width"] <= frame["x"] + frame["width"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(open_page, scheme):
    """WCAG asks for a contrast of 4.5."""
    page = open_page(build("apple-orange"), color_scheme=scheme)
    found = page.evaluate(
        """() => {
            const behind = (e) => {
                for (; e; e = e.parentElement) {
                    const color = getComputedStyle(e).backgroundColor;
                    if (color !== "rgba(0, 0, 0, 0)") return color;
                }
                return "rgb(255, 255, 255)";
            };
            const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
            return [...document.body.querySelectorAll("*")].filter((e) => own(e) && e.checkVisibility()).map((e) => [
                e.textContent.trim().slice(0, 20),
                e instanceof SVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color,
                behind(e),
            ]);
        }"""
    )
    assert len(found) > 40
    assert {text: contrast(front, back) for text, front, back in found if contrast(front, back) < 4.5} == {}


def contrast(*colors):
    lights = []
    for color in colors:
        rgb = np.array([int(n) for n in re.findall(r"\d+", color)[:3]]) / 255
        lights.append(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("example", ["apple", "apple-orange", "sigmoid", "softmax", "two-layer"])
def test_no_text_of_the_drawing_covers_another(open_page, example):
    page = open_page(build(example), 1700)
    boxes = page.evaluate(
        """() => [...document.querySelectorAll(".xpnet-graph text")].map((text) => {
            const { x, y, width, height } = text.getBoundingClientRect();
            return [text.textContent, x, y + height * 0.2, x + width, y + height * 0.8];
        })"""
    )
    covered = [
        (one[0], other[0])
        for i, one in enumerate(boxes)
        for other in boxes[:i]
        if min(one[3], other[3]) > max(one[1], other[1]) and min(one[4], other[4]) > max(one[2], other[2])
    ]
    assert covered == []


def test_a_graph_that_has_not_run_says_so(open_page):
    page = open_page(Graph(Input("x", 2.0) * Input("y")))
    assert page.locator("#step").inner_text().startswith("Nothing is computed yet")
    assert page.get_by_role("button", name="Next").is_disabled()


def test_a_graph_without_a_backward_pass_steps_forward_only(open_page, rng):
    graph = Graph(Affine(rng.random((4, 3)), rng.random(3))(Input("x", rng.random((2, 4)))))
    graph.forward()
    page = open_page(graph)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator("#progress").inner_text() == "Step 1 of 1"


def test_an_input_used_twice_shows_its_whole_derivative(open_page):
    x = Input("x", 3.0)
    graph = Graph(x * x)
    graph.forward()
    graph.backward()
    page = open_page(graph)
    assert page.get_by_text("in all 6").is_visible()
    page.get_by_label("x", exact=True).fill("4")
    assert page.get_by_text("in all 8").is_visible()
