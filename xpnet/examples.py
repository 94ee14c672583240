"""Computational graphs of the book, and of an LSTM."""

from collections.abc import Callable

from xpnet.datasets import load_mnist
from xpnet.device import Device
from xpnet.graph import Graph, Input, Value
from xpnet.layers import Sigmoid, Tanh
from xpnet.nets import TwoLayerNet

__all__ = ["EXAMPLES", "build"]


def build(name: str, device: Device | str = "cpu") -> Graph:
    """Build an example, and run it forward and backward.

    Parameters
    ----------
    name : str
        One of `EXAMPLES`.
    device : Device or str, default "cpu"
        Where to compute.
    """
    if name not in EXAMPLES:
        raise ValueError(f"name must be one of {', '.join(EXAMPLES)}, got {name!r}")
    graph = Graph(EXAMPLES[name](Device(device)))
    graph.forward()
    graph.backward()
    return graph


def _apple(device: Device) -> Value:
    """Two apples, with tax (section 5.1.1)."""
    apple, apple_num, tax = _numbers(device, apple=100, apple_num=2, tax=1.1)
    apple_price = _named("apple_price", apple * apple_num)
    return _named("price", apple_price * tax)


def _apple_orange(device: Device) -> Value:
    """Two apples and three oranges, with tax (section 5.4.2)."""
    apple, apple_num, orange, orange_num, tax = _numbers(
        device, apple=100, apple_num=2, orange=150, orange_num=3, tax=1.1
    )
    apple_price = _named("apple_price", apple * apple_num)
    orange_price = _named("orange_price", orange * orange_num)
    all_price = _named("all_price", apple_price + orange_price)
    return _named("price", all_price * tax)


def _sigmoid(device: Device) -> Value:
    """The logistic function from elementary operations (section 5.5.2)."""
    (x,) = _numbers(device, x=0.5)
    return _named("y", 1 / (1 + (-x).exp()))


def _softmax(device: Device) -> Value:
    """Softmax and cross entropy of three classes from elementary operations (appendix A); dL/da = y - t."""
    scores = _numbers(device, a1=0.3, a2=2.9, a3=4.0)
    labels = _numbers(device, t1=0, t2=1, t3=0)
    exps = [score.exp() for score in scores]
    total = _named("S", exps[0] + exps[1] + exps[2])
    outputs = [_named(f"y{i}", e / total) for i, e in enumerate(exps, 1)]
    terms = [y.log() * t for t, y in zip(labels, outputs, strict=True)]
    return _named("L", -(terms[0] + terms[1] + terms[2]))


def _two_layer(device: Device) -> Value:
    """The layers of the two-layer network on three images of MNIST (section 5.7)."""
    (images, labels), _ = load_mnist(one_hot_label=True)
    net = TwoLayerNet(784, 50, 10, "he", device=device, seed=0)
    value: Value = Input("x", device.asarray(images[:3]))
    for layer in net.layers.values():
        value = layer(value)
    return _named("loss", net.last_layer(value, Input("t", device.asarray(labels[:3]))))


def _lstm(device: Device) -> Value:
    """Two steps of an LSTM with one unit, without biases; its loss is half the square of the distance from t."""
    x1, x2, h, c, t = _numbers(device, x1=1.0, x2=-0.5, h0=0.0, c0=0.0, t=0.5)
    weights = {
        gate: _numbers(device, **{f"w{gate}": w, f"u{gate}": u})
        for gate, w, u in (("i", 0.5, 0.1), ("f", 0.4, -0.2), ("g", 0.9, 0.3), ("o", 0.7, 0.6))
    }
    state: tuple[Value, Value] = h, c
    for step, x in enumerate((x1, x2), 1):
        h_before, c_before = state
        i, f, g, o = (
            _named(f"{gate}{step}", (Tanh() if gate == "g" else Sigmoid())(x * w + h_before * u))
            for gate, (w, u) in weights.items()
        )
        c_now = _named(f"c{step}", f * c_before + i * g)
        state = _named(f"h{step}", o * Tanh()(c_now)), c_now
    return _named("loss", 0.5 * (state[0] - t) ** 2)


def _numbers(device: Device, **values: float) -> list[Input]:
    return [Input(name, device.asarray(value, "float64")) for name, value in values.items()]


def _named(name: str, value: Value) -> Value:
    value.name = name
    return value


EXAMPLES: dict[str, Callable[[Device], Value]] = {
    "apple": _apple,
    "apple-orange": _apple_orange,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
    "two-layer": _two_layer,
    "lstm": _lstm,
}
"""Functions by name that build an example and return its output."""
