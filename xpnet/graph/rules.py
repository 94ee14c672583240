"""Local rules of the nodes: sign, formula, and the derivative with respect to each input.

In the formulas, x and y are the node's inputs, and dout is the derivative of its output. A page replaces them with the
current numbers.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from xpnet import layers
from xpnet.layers import Layer

__all__ = ["Rule", "fill_in", "rule_of"]


@dataclass(frozen=True)
class Rule:
    """The rule of a kind of node.

    Attributes
    ----------
    operands : tuple of str
        Names of the inputs in the formulas.
    result : str
        Name of the output in the formulas.
    forward : str
        Formula of the output.
    backward : tuple of str
        Formula of the derivative with respect to each input.
    sign : str
        Sign in the node's circle; empty for a box.
    parameters : mapping of str to str
        Formulas of the derivatives with respect to parameters, by name.
    text : str
        Docstring of a layer without formulas.
    is_scalar : bool
        Whether the page can compute the node for numbers.
    """

    operands: tuple[str, ...]
    result: str
    forward: str
    backward: tuple[str, ...]
    sign: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    is_scalar: bool = True


def _of_two(sign: str, forward: str, *backward: str) -> Rule:
    return Rule(("x", "y"), "z", forward, backward, sign)


def _of_one(sign: str, forward: str, backward: str, is_scalar: bool = True) -> Rule:
    return Rule(("x",), "y", forward, (backward,), sign, is_scalar=is_scalar)


def _of_loss(forward: str, backward: str) -> Rule:
    return Rule(("x", "t"), "L", forward, (backward,), is_scalar=False)


RULES: dict[type[Layer], Rule] = {
    layers.AddLayer: _of_two("+", "x + y", "dout", "dout"),
    layers.SubLayer: _of_two("\u2212", "x \u2212 y", "dout", "\u2212dout"),
    layers.MulLayer: _of_two("\u00d7", "x \u00d7 y", "dout \u00d7 y", "dout \u00d7 x"),
    layers.DivLayer: _of_two("\u00f7", "x \u00f7 y", "dout \u00f7 y", "\u2212dout \u00d7 z \u00f7 y"),
    layers.PowLayer: _of_two("^", "x ^ y", "dout \u00d7 y \u00d7 x ^ (y \u2212 1)", "dout \u00d7 z \u00d7 log x"),
    layers.ExpLayer: _of_one("exp", "exp x", "dout \u00d7 y"),
    layers.LogLayer: _of_one("log", "log x", "dout \u00f7 x"),
    layers.SumLayer: _of_one("\u03a3", "\u03a3 x", "dout, to every element"),
    layers.MeanLayer: _of_one("mean", "mean of x", "dout \u00f7 n, to every element"),
    layers.MaxLayer: _of_one("max", "max of x", "dout where x is the maximum, else 0"),
    layers.MatMulLayer: Rule(("x", "y"), "z", "x @ y", ("dout @ y\u1d40", "x\u1d40 @ dout"), "@", is_scalar=False),
    layers.Affine: Rule(
        ("x",),
        "y",
        "x W + b",
        ("dout W\u1d40",),
        parameters={"W": "x\u1d40 dout", "b": "\u03a3 dout, over the batch"},
        is_scalar=False,
    ),
    layers.SoftmaxWithLoss: _of_loss(
        "\u2212\u03a3 t log y \u00f7 N, with y = softmax(x)", "dout \u00d7 (y \u2212 t) \u00f7 N"
    ),
    layers.SigmoidWithLoss: _of_loss(
        "mean of \u2212t log y \u2212 (1 \u2212 t) log(1 \u2212 y), with y = sigmoid(x)",
        "dout \u00d7 (y \u2212 t) \u00f7 n",
    ),
    layers.IdentityWithLoss: _of_loss("\u03a3 (x \u2212 t)\u00b2 \u00f7 2N", "dout \u00d7 (x \u2212 t) \u00f7 N"),
    layers.HuberWithLoss: _of_loss(
        "mean of e\u00b2 \u00f7 2 up to d, d \u00d7 (|e| \u2212 d \u00f7 2) beyond, with e = x \u2212 t",
        "dout \u00d7 e \u00f7 n, with e cut to [\u2212d, d]",
    ),
    layers.PoissonWithLoss: _of_loss("mean of y \u2212 t log y, with y = exp(x)", "dout \u00d7 (y \u2212 t) \u00f7 n"),
    layers.HingeWithLoss: _of_loss(
        "\u03a3 max(0, m + x \u2212 x of the label) \u00f7 NC, over the other classes",
        "dout \u00f7 NC where that is above 0, and \u2212 their sum at the label",
    ),
}


def rule_of(layer: Layer) -> Rule:
    """Return the rule of a layer: its entry in `RULES`, or from its formula, or else its docstring as the text."""
    rule = RULES.get(type(layer))
    if rule is not None:
        return rule
    if layer.formula is not None:
        return _of_one("", layer.formula.forward, layer.formula.backward, layer.formula.is_scalar)
    operands = ("x",) if layer.inputs == 1 else tuple(f"x{i + 1}" for i in range(layer.inputs))
    paragraphs = inspect.cleandoc(type(layer).__doc__ or "").split("\n\n")[:2]
    text = " ".join(" ".join(paragraphs).split())
    forward = f"{type(layer).__name__}({', '.join(operands)})"
    return Rule(operands, "y", forward, (), text=text, is_scalar=False)


def fill_in(formula: str, names: Mapping[str, str]) -> str:
    """Replace the names in a formula.

    >>> fill_in("dout \u00d7 y", {"x": "100", "y": "2", "dout": "1.1"})
    '1.1 \u00d7 2'
    """
    return re.sub(r"[a-zA-Z]\w*", lambda word: names.get(word[0], word[0]), formula, flags=re.ASCII)
