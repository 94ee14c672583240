"""JAX: a jitted step, and many steps in one `lax.scan`.

Matrix products are in TF32 only where the work says so, and float64 is allowed. The parameters are donated: each step
may write the new ones over the old. JAX must not take most of the GPU's memory for itself, other parties are on it too.
"""

from __future__ import annotations

import os

os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

import jax
import jax.numpy as jnp
import numpy as np

from . import Missing, Party

jax.config.update("jax_enable_x64", True)

PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32"}
"""What JAX calls them."""

UNROLL = 5
"""Steps that the scan's loop writes out: on the CPU that is a tenth faster than one."""


class JaxJit(Party):
    """One call of a jitted step after the other."""

    def __init__(self, work, device, seed=0):
        jax.config.update("jax_default_matmul_precision", PRECISIONS[work.precision])
        self.device = find_device(device)
        (self.x, self.t), (self.x_test, self.t_test) = (map(self._on_device, part) for part in work.data())
        initial = work.initial_parameters(seed)
        names = [(f"W{number}", f"b{number}") for number in range(1, len(work.sizes))]
        self.layers = [tuple(self._on_device(initial[name]) for name in pair) for pair in names]
        self._compile(work.lr)

    def _compile(self, lr):
        self._accuracy = jax.jit(lambda layers, x, t: jnp.mean(predict(layers, x).argmax(1) == t))
        self._step = jax.jit(make_step(lr), donate_argnums=0)

    def run(self, indices):
        for index in self._on_device(indices.astype("int32")):
            self.layers, self.loss = self._step(self.layers, self.x, self.t, index)

    def synchronize(self):
        jax.block_until_ready(self.layers)

    def parameters(self):
        pairs = enumerate(self.layers, 1)
        return {f"{name}{number}": np.array(v) for number, pair in pairs for name, v in zip("Wb", pair, strict=True)}

    def accuracy(self):
        return float(self._accuracy(self.layers, self.x_test, self.t_test))

    def _on_device(self, array):
        return jax.device_put(array, self.device)


class JaxScanned(JaxJit):
    """All steps of a call in one compiled loop."""

    def _compile(self, lr):
        super()._compile(lr)
        step = make_step(lr)

        def steps(layers, x, t, indices):
            return jax.lax.scan(lambda layers, index: step(layers, x, t, index), layers, indices, unroll=UNROLL)

        self._steps = jax.jit(steps, donate_argnums=0)

    def run(self, indices):
        self.layers, self.losses = self._steps(self.layers, self.x, self.t, self._on_device(indices.astype("int32")))


def predict(layers, x):
    """Return the scores."""
    *hidden, (W, b) = layers
    for V, c in hidden:
        x = jax.nn.relu(x @ V + c)
    return x @ W + b


def make_step(lr):
    """Return the training step as a function without effects."""

    def loss(layers, x, t):
        logarithms = jax.nn.log_softmax(predict(layers, x))
        return -jnp.take_along_axis(logarithms, t[:, None], axis=1).mean()

    def step(layers, x, t, index):
        value, gradients = jax.value_and_grad(loss)(layers, x[index], t[index])
        return jax.tree.map(lambda parameter, gradient: parameter - lr * gradient, layers, gradients), value

    return step


def find_device(device):
    """Return JAX's name for a device."""
    kind, _, number = device.name.partition(":")
    try:
        return jax.devices(kind)[int(number or 0)]
    except (RuntimeError, IndexError) as error:
        raise Missing(f"JAX {jax.__version__} finds no device {device}") from error
