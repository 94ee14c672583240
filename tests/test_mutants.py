"""Faults planted in three layers: check_layer finds each that changes a gradient, and names it.

A mutant is the source of a layer with one node of its syntax tree changed. A fault in forward that gives another
function with the right derivative is no fault of a gradient. So a mutant counts if its output is the layer's own, and
a gradient is not.
"""

import ast
import copy
import inspect
import types
import weakref

import numpy as np
import pytest

from xpnet import asnumpy, kernels
from xpnet.kernels import normalization as normalization_kernels
from xpnet.layers import affine, normalization, recurrent
from xpnet.testing import check_layer


def affine_layer(module, rng):
    return module.Affine(rng.standard_normal((2, 3)), rng.standard_normal(3))


def normalizing_layer(module, rng):
    return module.BatchNormalization(
        1 + rng.random(2), rng.standard_normal(2), running_mean=rng.random(2), running_var=1 + rng.random(2)
    )


def recurrent_layer(module, rng):
    return module.LSTM(rng.standard_normal((3, 8)), rng.standard_normal((2, 8)), rng.standard_normal(8))


LAYERS = {
    "Affine": (affine_layer, (5, 2), {affine: ("Affine.forward", "Affine.backward", "Affine.backward_parameters")}),
    "BatchNormalization": (
        normalizing_layer,
        (5, 2),
        {
            normalization: ("BatchNormalization.forward", "BatchNormalization.backward"),
            normalization_kernels: ("normalize_batch", "normalize_batch_gradient"),
        },
    ),
    "LSTM": (
        recurrent_layer,
        (5, 4, 3),
        {recurrent: ("Recurrent.forward", "Recurrent.backward", "LSTM._forward_steps", "LSTM._backward_steps")},
    ),
}


def replaced(node, other):
    """Turn a node into another one, in place."""
    other = copy.deepcopy(other)
    node.__class__ = other.__class__
    node.__dict__.clear()
    node.__dict__.update(other.__dict__)


def sets_a_gradient(node):
    """Whether the node is ``self.dW = f(...)``."""
    return isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and ast.unparse(node).startswith("self.d")


def sign(node):
    if sets_a_gradient(node):
        node.value = ast.UnaryOp(ast.USub(), node.value)
        return True
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        node.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
        return True
    return False


def factor(node):
    if sets_a_gradient(node):
        node.value = ast.BinOp(ast.Constant(2.0), ast.Mult(), node.value)
        return True
    if isinstance(node, ast.Constant) and isinstance(node.value, float):
        node.value = 2.0 * node.value + 0.5
        return True
    return False


def missing_factor(node):
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Mult, ast.Div)):
        replaced(node, node.left)
        return True
    return False


def missing_term(node):
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        replaced(node, node.left)
        return True
    return False


def transposed_axis(node):
    if isinstance(node, ast.Attribute) and node.attr == "T":
        replaced(node, node.value)
        return True
    if isinstance(node, ast.keyword) and node.arg == "axis" and isinstance(node.value, ast.Constant):
        node.value.value = 1 - node.value.value
        return True
    return False


def argument_changed_in_place(node):
    if isinstance(node, ast.FunctionDef) and node.name in ("forward", "backward"):
        argument = node.args.args[1].arg
        node.body.insert(0, ast.parse(f"{argument} *= 1.5").body[0])
        return True
    return False


def dtype_drift(node):
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.IfExp):
        node.value = ast.parse(f"({ast.unparse(node.value)}) * numpy.float64(1.0)", mode="eval").body
        return True
    return False


def saved_array_returned(node):
    if isinstance(node, ast.Return) and isinstance(node.value, ast.Call | ast.IfExp):
        node.value = ast.parse(f"kept({ast.unparse(node.value)}, {node.lineno}, self)", mode="eval").body
        return True
    return False


RETURNED = weakref.WeakKeyDictionary()


def kept(value, place, layer):
    """Return a result in the array that was returned the last time."""
    mine = RETURNED.setdefault(layer, {})
    array = mine.setdefault((place, value.shape, value.dtype), value)
    array[...] = value
    return array


FAULTS = {
    sign: "gradient",
    factor: "gradient",
    missing_factor: "gradient",
    missing_term: "gradient",
    transposed_axis: "gradient",
    argument_changed_in_place: "arguments unchanged",
    dtype_drift: "dtypes",
    saved_array_returned: "results kept",
}


NO_PLACE = {("Affine", missing_factor), ("Affine", missing_term), ("BatchNormalization", transposed_axis)}


def nodes_of(tree, names):
    """List the nodes within functions: "Affine.forward"."""
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        functions |= {f"{cls.name}.{node.name}": node for node in cls.body if isinstance(node, ast.FunctionDef)}
    return [(name, node) for name in names for node in ast.walk(functions[name])]


def mutants(fault, parts):
    """Yield a description of each mutant, and its module."""
    main = next(iter(parts))
    for module, names in parts.items():
        source = inspect.getsource(module)
        for place, (name, node) in enumerate(nodes_of(ast.parse(source), names)):
            if fault(copy.deepcopy(node)):
                tree = ast.parse(source)
                fault(nodes_of(tree, names)[place][1])
                yield f"{name}, line {node.lineno}: {ast.unparse(node)}", executed(tree, module, main)


def executed(tree, module, main):
    """Return the main module as mutated, or on kernels that are."""
    made = types.ModuleType(module.__name__)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = [d for d in node.decorator_list if getattr(d, "id", "") != "kernel"]
    vars(made).update(numpy=np, kept=kept, __file__=module.__file__)
    exec(compile(ast.fix_missing_locations(tree), module.__file__, "exec"), vars(made))
    if module is main:
        return made
    own = types.ModuleType(main.__name__)
    exec(compile(inspect.getsource(main), main.__file__, "exec"), vars(own))
    own.kernels = types.SimpleNamespace(**vars(kernels) | {name: vars(made)[name] for name in made.__all__})
    return own


def results(layer, x, dout, train):
    layer.fixed_buffers = True
    y = layer.forward(x, train=train)
    before = asnumpy(y).copy()
    return [before, layer.backward(dout), *(getattr(layer, f"d{name}") for name in layer.parameter_names)]


def changes_a_gradient(make, module, original, shape):
    """Whether the mutant's output is the layer's own, and a gradient is not (or is no array, or an error)."""
    x = np.random.default_rng(1).standard_normal(shape)
    for train in (True, False):
        layer = make(original, np.random.default_rng(0))
        dout = np.random.default_rng(2).standard_normal(layer.forward(x).shape)
        y, *expected = results(layer, x, dout, train)
        mutant = make(module, np.random.default_rng(0))
        if not np.array_equal(mutant.forward(x, train=train), y):
            continue
        try:
            _, *found = results(mutant, x, dout, train)
        except (ValueError, TypeError, IndexError, AttributeError):
            return True
        if not all(a.shape == b.shape and np.allclose(a, b, 1e-9) for a, b in zip(found, expected, strict=True)):
            return True
    return False


@pytest.mark.parametrize(
    ("name", "fault"),
    [(name, fault) for name in LAYERS for fault in FAULTS if (name, fault) not in NO_PLACE],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_every_planted_fault_is_found_and_named(name, fault):
    make, shape, parts = LAYERS[name]
    x = np.random.default_rng(3).standard_normal(shape)
    found, survivors = [], []
    for mutant, module in mutants(fault, parts):
        try:
            if FAULTS[fault] == "gradient" and not changes_a_gradient(make, module, next(iter(parts)), shape):
                continue
        except (ValueError, TypeError, IndexError, AttributeError):
            continue  # forward itself is an error
        checks = ["gradient", "prediction"] if FAULTS[fault] == "gradient" else [FAULTS[fault]]
        report = check_layer(make(module, np.random.default_rng(0)), x, checks=checks, raises=False)
        (survivors if report.ok else found).append(mutant)
    assert not survivors
    assert found
