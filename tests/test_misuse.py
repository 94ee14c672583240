"""Errors have names: a wrong argument is met by a message of xpnet's own, which names it."""

import copy
import datetime
import linecache
import re
import warnings
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import xpnet
from xpnet import functions, initializers, layers, nets, optimizers
from xpnet.datasets import Windows, load_mnist
from xpnet.gradient import gradient_check, numerical_gradient
from xpnet.graph import Graph, Input
from xpnet.layers import Affine, Convolution, Embedding
from xpnet.nets import Sequential
from xpnet.optimizers import schedules
from xpnet.training import Trainer

SCALARS = [None, "text", "", b"text", float("nan"), float("inf"), -1, 0, 1.5, -0.5, 2**70, True, 1j, object()]
SCALARS += [Decimal("0.5"), datetime.date(2020, 1, 1), len, (), [], [1, "a"], [[1.0], [1.0, 2.0]], {}, {"a": 1}, {1, 2}]
DTYPES = ["complex64", "object", "U3", "S3", "datetime64[s]", "bool", "int8", "uint64", "float16", ">f8"]


class Misused(NamedTuple):
    """A call that works; each of its arguments in turn is replaced by something wrong."""

    name: str
    function: Callable[..., Any]
    arguments: dict[str, Any]


def net():
    return Sequential.mlp([4, 3, 2], seed=0)


def floats(*shape):
    return np.linspace(0.1, 1.0, int(np.prod(shape))).reshape(shape)


X, T = floats(3, 4).astype("float32"), np.array([0, 1, 1])
IMAGES, DIGITS = floats(2, 1, 28, 28).astype("float32"), np.array([1, 2])


def passes():
    """Return a maker and an input of each layer of one input."""
    rows, images = floats(3, 4), floats(2, 3, 6, 6)
    return {
        "Affine": (lambda: Affine(floats(4, 2), floats(2)), rows),
        "Convolution": (lambda: Convolution(floats(2, 3, 3, 3), floats(2)), images),
        "Pooling": (lambda: layers.Pooling(2, 2), images),
        "AveragePooling": (lambda: layers.AveragePooling(2, 2), images),
        "GlobalAveragePooling": (layers.GlobalAveragePooling, images),
        "Flatten": (layers.Flatten, images),
        "BatchNormalization": (lambda: layers.BatchNormalization(floats(4), floats(4)), rows),
        "LayerNorm": (lambda: layers.LayerNorm(floats(4), floats(4)), rows),
        "Normalize": (lambda: layers.Normalize(floats(4), floats(4)), rows),
        "Dropout": (lambda: layers.Dropout(seed=0), rows),
        "Embedding": (lambda: Embedding(floats(5, 2)), np.array([[0, 1], [4, 2]])),
        "Residual": (lambda: layers.Residual(Affine(floats(4, 4), floats(4))), rows),
        **{
            name: (getattr(layers, name), rows)
            for name in ("Relu", "LeakyRelu", "Elu", "Sigmoid", "Tanh", "Softplus", "Silu", "Gelu", "Softmax")
        },
        **{
            name: (getattr(layers, name), rows)
            for name in ("ExpLayer", "LogLayer", "SumLayer", "MeanLayer", "MaxLayer")
        },
    }


SEQUENCES = {
    **{name: lambda name=name: getattr(layers, name).from_sizes(4, 3, rng=0) for name in ("RNN", "LSTM", "GRU")},
    "Bidirectional": lambda: layers.Bidirectional(*(layers.GRU.from_sizes(4, 3, rng=seed) for seed in (0, 1))),
    "MultiHeadAttention": lambda: layers.MultiHeadAttention.from_sizes(4, 2, rng=0),
    "TransformerBlock": lambda: layers.TransformerBlock.from_sizes(4, 2, causal=True, rng=0),
    "PositionalEncoding": layers.PositionalEncoding,
    "LearnedPositionalEncoding": lambda: layers.LearnedPositionalEncoding.from_sizes(5, 4, rng=0),
    "Unembedding": lambda: layers.Unembedding(Embedding(floats(5, 4))),
}

PAIRS = {name: (floats(3, 4), floats(3, 4)) for name in ("AddLayer", "SubLayer", "MulLayer", "DivLayer", "PowLayer")}
PAIRS["MatMulLayer"] = floats(3, 4), floats(4, 2)
LOSSES = {
    "SoftmaxWithLoss": T,
    "HingeWithLoss": T,
    "SigmoidWithLoss": floats(3, 4),
    "IdentityWithLoss": floats(3, 4),
    "PoissonWithLoss": floats(3, 4) ** 2,
    "HuberWithLoss": floats(3, 4),
}


def forward_of(make):
    return lambda **inputs: make().forward(**inputs)


def backward_of(make, *inputs):
    def backward(dout):
        layer = make()
        layer.forward(*inputs)
        return layer.backward(dout)

    return backward


def step(x, t, indices):
    return net().compile(optimizers.SGD(0.1), 3, "numpy").run(x, t, indices)


def graph_forward(a):
    return Graph(Input("a", 2.0) * Input("b", floats(3))).forward(a=a)


def graph_backward(dout):
    graph = Graph(Input("a", 2.0) * Input("b", floats(3)))
    graph.forward()
    return graph.backward(dout)


def calls():
    """Return the calls, over all of the public interface."""
    made = []

    def add(name, function, /, **arguments):
        made.append(Misused(name, function, arguments))

    add("Affine", Affine, W=floats(4, 2), b=floats(2))
    add("Affine.from_sizes", Affine.from_sizes, input_size=4, output_size=2, std=0.1, rng=0, dtype="float32")
    windows = {"stride": 1, "pad": 0, "dilation": 1, "groups": 1}
    add("Convolution", Convolution, W=floats(2, 3, 3, 3), b=floats(2), **windows)
    sizes = {"in_channels": 3, "out_channels": 2, "filter_size": 3}
    add("Convolution.from_sizes", Convolution.from_sizes, **sizes, **windows, std="he", rng=0, dtype="float32")
    for name in ("Pooling", "AveragePooling"):
        add(name, getattr(layers, name), pool_h=2, pool_w=2, stride=2, pad=0)
    for name in ("BatchNormalization", "LayerNorm"):
        more = {"momentum": 0.9} if name == "BatchNormalization" else {}
        add(name, getattr(layers, name), gamma=floats(4), beta=floats(4), eps=1e-5, **more)
    add("Normalize", layers.Normalize, mean=floats(4), std=floats(4))
    add("Normalize.from_data", layers.Normalize.from_data, x=floats(3, 4))
    add("Dropout", layers.Dropout, dropout_ratio=0.5, seed=0)
    add("Embedding", Embedding, W=floats(5, 2))
    add("Embedding.from_sizes", Embedding.from_sizes, ids=5, output_size=2, std=1.0, rng=0, dtype="float32")
    add("Residual", lambda layer: layers.Residual(layers.Relu(), layer), layer=layers.Relu())
    add("LeakyRelu", layers.LeakyRelu, negative_slope=0.1)
    add("Elu", layers.Elu, alpha=1.0)
    add("Gelu", layers.Gelu, approximate="tanh")
    add("SoftmaxWithLoss", layers.SoftmaxWithLoss, label_smoothing=0.1, class_weight=floats(4))
    add("HuberWithLoss", layers.HuberWithLoss, delta=1.0)
    add("HingeWithLoss", layers.HingeWithLoss, margin=1.0)
    for name in ("RNN", "LSTM", "GRU"):
        arguments = {"input_size": 4, "hidden_size": 3, "batch_size": 2, "std": "lecun", "rng": 0, "dtype": "float32"}
        add(f"{name}.from_sizes", getattr(layers, name).from_sizes, **arguments)
        add(f"{name}.advance", lambda x, state, name=name: SEQUENCES[name]().advance(x, state), x=floats(2, 5, 4),
            state=SEQUENCES[name]().advance(floats(2, 5, 4))[1])  # fmt: skip
    heads = {"size": 4, "num_heads": 2, "causal": True, "rotary": False, "block_size": 2, "rng": 0, "dtype": "float32"}
    add("MultiHeadAttention.from_sizes", layers.MultiHeadAttention.from_sizes, **heads)
    add("TransformerBlock.from_sizes", layers.TransformerBlock.from_sizes, **heads, hidden_size=3, dropout=0.1)
    padding = np.zeros((2, 5), bool)
    add("MultiHeadAttention.forward", lambda x, padding: SEQUENCES["MultiHeadAttention"]().forward(x, True, padding),
        x=floats(2, 5, 4), padding=padding)  # fmt: skip
    add("CrossAttention.forward", lambda x, memory: layers.CrossAttention.from_sizes(4, 2, rng=0).forward(x, memory),
        x=floats(2, 5, 4), memory=floats(2, 3, 4))  # fmt: skip
    add("Unembedding", layers.Unembedding, embedding=Embedding(floats(5, 4)))
    for name, (make, x) in {**passes(), **{name: (make, floats(2, 5, 4)) for name, make in SEQUENCES.items()}}.items():
        add(f"{name}.forward", forward_of(make), x=x)
        y = make().forward(x)
        add(f"{name}.backward", backward_of(make, x), dout=floats(*np.shape(y)))
    for name, (x, y) in PAIRS.items():
        make = getattr(layers, name)
        add(f"{name}.forward", forward_of(make), x=x, y=y)
        add(f"{name}.backward", backward_of(make, x, y), dout=floats(*make().forward(x, y).shape))
    for name, t in LOSSES.items():
        add(f"{name}.forward", forward_of(getattr(layers, name)), x=floats(3, 4), t=t)
        add(f"{name}.backward", backward_of(getattr(layers, name), floats(3, 4), t), dout=1.0)

    for name in ("relu", "sigmoid", "softplus", "erf", "step_function", "softmax"):
        add(name, getattr(functions, name), x=floats(3, 4))
    add("softmax axis", lambda axis: functions.softmax(floats(3, 4), axis), axis=-1)
    add("softmax_cross_entropy", functions.softmax_cross_entropy, x=floats(3, 4), t=T)
    add("cross_entropy_error", functions.cross_entropy_error, y=floats(3, 4), t=T)
    add("mean_squared_error", functions.mean_squared_error, y=floats(3, 4), t=floats(3, 4))
    add("one_hot", functions.one_hot, t=T, num_classes=3, dtype="float32")
    add("im2col", functions.im2col, input_data=floats(2, 3, 6, 6), filter_h=3, filter_w=3, stride=1, pad=0)
    shape = {"input_shape": (2, 3, 6, 6), "filter_h": 3, "filter_w": 3}
    add("col2im", functions.col2im, col=floats(32, 27), **shape, stride=1, pad=0)

    common = {"device": "cpu", "dtype": "float32", "seed": 0}
    add("Sequential", Sequential, layers=[layers.Relu()], loss=None, input_shape=(4,), device="cpu", dtype="float32")
    add("mlp", Sequential.mlp, sizes=[4, 3, 2], activation="relu", std="he", loss=None, **common)
    add("TwoLayerNet", nets.TwoLayerNet, input_size=4, hidden_size=3, output_size=2, weight_init_std=0.1, **common)
    sizes = {"input_size": 4, "hidden_size_list": [3, 3], "output_size": 2, "activation": "relu"}
    for name, more in (("MultiLayerNet", {}), ("MultiLayerNetExtend", {"dropout_ration": 0.5})):
        settings = {"weight_init_std": "relu", "weight_decay_lambda": 0.1}
        add(name, getattr(nets, name), **sizes, **settings, **more, **common)
    sizes = {"vocab_size": 5, "size": 4, "dropout": 0.1, **common}
    add("SequenceClassifier", nets.SequenceClassifier, classes=2, cell="gru", bidirectional=True, loss=None, **sizes)
    add("LanguageModel", nets.LanguageModel, cell="rnn", batch_size=2, **sizes)
    add("GPT", lambda **given: nets.GPT(num_layers=1, **given), length=6, num_heads=2, **sizes)
    # Not the number of ids: a very large one is no mistake that could be named.
    drawn = {"x": np.array([[0, 1]]), "temperature": 0.5, "top_k": 2, "rng": 0}
    add("generate", lambda x, **given: nets.LanguageModel(5, 4, seed=0).generate(x, 2, **given), **drawn)
    add("Windows", Windows, ids=np.arange(9), length=3)
    images = {"input_dim": (1, 28, 28), "output_size": 10, "weight_init_std": 0.1, **common}
    add("SimpleConvNet", nets.SimpleConvNet, conv_param={"filter_num": 2}, hidden_size=3, **images)
    add("LeNet5", nets.LeNet5, **images)
    add("DeepConvNet", nets.DeepConvNet, hidden_size=3, **images)
    for name in ("predict", "loss", "accuracy", "gradient"):
        arguments = {"x": X} if name == "predict" else {"x": X, "t": T}
        add(f"Sequential.{name}", lambda name=name, **arguments: getattr(net(), name)(**arguments), **arguments)
    add("Sequential.predict", lambda x: nets.SimpleConvNet(seed=0).predict(x), x=IMAGES)
    add("Sequential.to", lambda **arguments: net().to(**arguments), device="cpu", dtype="float32")
    add("Sequential.load_params", lambda file: net().load_params(file), file="missing.npz")
    compiled = {"optimizer": optimizers.SGD(0.1), "batch_size": 3, "backend": "numpy", "precision": "float32"}
    add("compile", lambda **arguments: net().compile(**arguments), **compiled)
    add("run", step, x=X, t=T, indices=np.zeros((2, 3), int))

    for name in optimizers.OPTIMIZERS:
        cls = optimizers.OPTIMIZERS[name]
        settings = {"lr": 0.1, "weight_decay": 0.1, "clip_norm": 1.0, **({"momentum": 0.9} if "m" in name else {})}
        settings = {key: value for key, value in settings.items() if key != "momentum" or "momentum" in vars(cls())}
        add(cls.__name__, cls, **settings)
        arrays = {"W": floats(2, 2)}
        add(cls.__name__, lambda cls=cls, **both: cls(0.1).update(**both), params=arrays, grads=arrays)
    add("update", lambda p: optimizers.Adam(0.1).update({"p": p}, {"p": floats(2, 2)}), p=floats(2, 2))
    add("update", lambda g: optimizers.Adam(0.1).update({"g": floats(2, 2)}, {"g": g}), g=floats(2, 2))
    add("get_optimizer", optimizers.get_optimizer, name="adam", lr=0.1)
    add("StepLR", schedules.StepLR, lr=0.1, step_size=3, gamma=0.1)
    add("CosineAnnealing", schedules.CosineAnnealing, lr=0.1, T_max=3, eta_min=0.0)
    cycle = {"pct_start": 0.3, "div_factor": 25.0, "final_div_factor": 1e4}
    add("OneCycle", schedules.OneCycle, max_lr=0.1, total_steps=10, **cycle)
    add("Warmup", schedules.Warmup, lr=0.1, total_iters=3, start_factor=0.5)
    add("get_schedule", optimizers.get_schedule, name="step", lr=0.1, steps=9)

    data = {"x_train": X, "t_train": T, "x_test": X, "t_test": T}
    settings = {"epochs": 1, "mini_batch_size": 2, "optimizer": "sgd", "optimizer_param": {"lr": 0.1}}
    settings |= {"evaluate_sample_num_per_epoch": 2, "steps": 2, "seed": 0, "callbacks": ()}
    settings |= {"backend": "numpy", "precision": "float32"}
    add("Trainer", lambda **given: Trainer(net(), verbose=False, **given), **data, **settings)
    add("Trainer", lambda network: Trainer(network, X, T, X, T), network=net())
    add("gradient_check", lambda **given: gradient_check(net(), **given), x=X, t=T, method="batched", h=1e-4, seed=0)
    add("gradient_check", lambda **given: gradient_check(net(), X, T, **given), tolerance=1e-4, memory=2**20, samples=2)
    add("gradient_check", lambda net: gradient_check(net, X, T), net=net())
    add("numerical_gradient", numerical_gradient, f=np.sum, x=floats(3), h=1e-4)
    add("Graph", Graph, output=Input("a", 1.0) * 2.0)
    add("Input", Input, name="a", value=1.0)
    add("Value", lambda value: Input("value", 1.0) * value, value=2.0)
    add("Graph.forward", graph_forward, a=2.0)
    add("Graph.backward", graph_backward, dout=floats(3))
    add("load_mnist", lambda root: load_mnist(root=root), root=None)
    for name in ("initial_weights", "normal"):
        add(name, getattr(initializers, name), shape=(4, 3), std="he", rng=0, dtype="float32")
    add("orthogonal", initializers.orthogonal, shape=(4, 3), rng=0, dtype="float32")
    add("scale", initializers.scale, std="he", shape=(4, 3))
    add("Device", xpnet.Device, name="cpu")
    return made


def wrong_values(value):
    """Return what might be passed by mistake in place of an argument."""
    yield from SCALARS
    like = value if np.ndim(value) and isinstance(value, np.ndarray) else floats(3, 4)
    yield from (like[:0], like[None], like[..., :1], like[..., None], like.reshape(-1), np.ones(()), np.ones((2,) * 6))
    yield from (like * np.nan, like * -1e30, like.tolist(), like[1:], np.concatenate([like, like]))
    for dtype in DTYPES:
        yield like.astype(dtype)


def words(*texts):
    return set(re.findall(r"[^\W_]+", " ".join(texts).lower()))


def outcome(call, argument, value):
    """Return how a call ends: "result", "named", or the exception of something deep inside."""
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            call.function(**{**copy.deepcopy(call.arguments), argument: value})
    except Exception as error:
        trace = error.__traceback__
        while trace.tb_next is not None:
            trace = trace.tb_next
        file = trace.tb_frame.f_code.co_filename
        line = linecache.getline(file, trace.tb_lineno).strip()
        is_own = line.startswith("raise") and Path(file).is_relative_to(Path(xpnet.__file__).parent)
        if is_own and words(call.name, *call.arguments) & words(str(error)):
            return "named"
        return f"{type(error).__name__}: {error} [{Path(file).name}:{trace.tb_lineno} {line}]"
    return "result"


@pytest.mark.slow
def test_at_most_one_misuse_in_fifty_raises_an_error_without_a_name():
    ends, unnamed = Counter(), []
    for call in calls():
        for argument, given in call.arguments.items():
            for value in wrong_values(given):
                end = outcome(call, argument, value)
                ends[end if end in {"result", "named"} else "unnamed"] += 1
                if end not in {"result", "named"}:
                    unnamed.append(f"{call.name}({argument}={str(value)[:40]!r}): {end}")
    assert ends["named"] > 1000
    assert ends["unnamed"] <= 0.02 * ends.total(), "\n".join([str(ends), *unnamed])


MESSAGES = [
    (lambda: Affine("W", "b"), "Affine expected W to be an array of shape (D, M), got str"),
    (lambda: Affine.from_sizes(2.5, 3), "input_size must be a positive integer, got 2.5"),
    (
        lambda: Affine.from_sizes(4, 3, rng="a"),
        "rng must be an integer that is not negative, or a numpy.random.Generator",
    ),
    (lambda: Affine.from_sizes(4, 3, dtype="real"), "dtype must be a dtype, such as 'float32', got 'real'"),
    (lambda: Affine.from_sizes(4, 3, dtype="int8"), "dtype must be one of floats, got int8"),
    (lambda: Affine.from_sizes(4, 3, std=None), "std must be finite and not negative, got None"),
    (lambda: layers.Relu().backward(np.ones(3)), "Relu.backward needs 'mask', which forward saves; call Relu.forward"),
    (lambda: layers.Sigmoid().forward(["a"]), "x must hold numbers, got strings such as np.str_('a')"),
    (lambda: layers.Sigmoid().forward(np.ones(2, complex)), "x must hold real numbers, got dtype complex128"),
    (lambda: layers.Flatten().forward(1.0), "Flatten expected x of shape (N, ...), got a single number"),
    (lambda: layers.Dropout("half"), "dropout_ratio must be in [0, 1), got half"),
    (lambda: layers.Elu(float("nan")), "alpha must be finite and not negative, got nan"),
    (lambda: layers.HuberWithLoss(None), "delta must be finite and positive, got None"),
    (lambda: layers.AddLayer().forward(np.ones(3), np.ones(4)), "AddLayer expected x and y of shapes that broadcast"),
    (lambda: functions.softmax(floats(3, 4), 2), "softmax expected axis to be an integer"),
    (lambda: Affine.from_sizes(3, 2**63), "output_size must be at most 9,223,372,036,854,775,807, the largest index"),
    (
        lambda: Affine.from_sizes(2**30, 2**30),
        "shape of the weights must fit in the memory of ",
    ),
    (lambda: Affine.from_sizes(2**62, 2**62, std="orthogonal"), "lower the sizes of the layer"),
    (lambda: layers.LSTM.from_sizes(2, 2, batch_size=2**60), "batch_size must fit in the memory of "),
    (lambda: functions.one_hot(T, "three"), "num_classes must be a positive integer, got 'three'"),
    (lambda: functions.cross_entropy_error(["a"], T), "y must hold numbers"),
    (lambda: functions.softmax_cross_entropy(["a"], T), "x must hold numbers"),
    (lambda: Sequential(5), "layers must be layers in order, or layers by name, got int"),
    (lambda: Sequential.mlp(5), "sizes must be a tuple of integers that are not negative, got 5"),
    (lambda: Sequential.mlp([4, 2], seed=-1), "seed must be an integer that is not negative"),
    (lambda: nets.MultiLayerNet(4, None, 2), "hidden_size_list must be a tuple of integers"),
    (lambda: nets.LeNet5((28, 28)), "input_dim must be (channels, height, width), got (28, 28)"),
    (lambda: net().compile(optimizers.SGD(), 2**63), "batch_size must be at most 9,223,372,036,854,775,807"),
    (lambda: net().compile(optimizers.SGD(), 2**60), "lower it, or set microbatch"),
    (lambda: net().compile(optimizers.SGD(), 2**60, microbatch=2), "batch_size must fit in the memory of "),
    (lambda: net().compile("sgd", 3), "optimizer must be an xpnet.optimizers.Optimizer, got str"),
    (lambda: net().load_params(1), "file must be a path, got int"),
    (lambda: optimizers.SGD().update(None, {}), "params must be a mapping of names to arrays, got NoneType"),
    (lambda: optimizers.get_schedule("step", 0.1, None), "steps must be a positive integer, got None"),
    (lambda: Trainer("net", X, T, X, T), "network must be an xpnet.nets.Network, got str"),
    (lambda: Trainer(net(), X, T, X, T, mini_batch_size=2**63), "mini_batch_size must be at most 9,223,372,036,854"),
    (lambda: Trainer(net(), X, T, X, T, mini_batch_size=2**60), "batch_size must fit in the memory of "),
    (lambda: Trainer(net(), X, T, X, T, steps=10**20), "steps must be at most 9,223,372,036,854,775,807"),
    (lambda: gradient_check(net(), X, T, h=0), "h must be finite and positive, got 0"),
    (lambda: gradient_check(net(), X[:0], T[:0]), "x must hold samples, got none"),
    (lambda: Graph(2.0), "output must be a value of a graph, got float"),
]


@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[message for _, message in MESSAGES])
def test_the_message_names_what_is_wrong(call, message):
    with pytest.raises((ValueError, TypeError, RuntimeError), match=re.escape(message)):
        call()
