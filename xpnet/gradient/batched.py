"""Central differences of a network's parameters, many coordinates at a time.

A colouring of the coordinates, after Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices" (1974):
those that reach disjoint slices of their layer's output are perturbed together, in one forward pass of the layer. Each
slice of the result then belongs to one coordinate, and makes one perturbed copy of the output; the copies, folded into
the batch axis, go through the layers behind together. So every value is a difference of the real forward passes:
no rule stands in for any of them, and nothing of backward is used.

For ``Affine`` the weights of one input reach one unit each: 784-50-10 takes 2 x 784 passes through the first layer and
78,400 small batches through the second, instead of 78,400 passes through both.
"""

import math
from collections.abc import Iterable, Iterator

import numpy as np

from xpnet.device import asnumpy, get_array_module, is_on_host
from xpnet.gradient.differentiable import Differentiable
from xpnet.gradient.numerical import central_differences
from xpnet.layers import Layer, Residual
from xpnet.typing import Array

__all__ = ["Batched", "NotApplicable"]

PROBES = 16
"""Random coordinates of each parameter that are compared with the loop."""

CACHE = 16 * 2**20
"""Bytes that the copies may take on the host: larger chunks hardly save calls, and miss the cache."""

SCREEN = 4
"""Groups that are first perturbed all at once, to see whether the output depends on any of them: of MNIST's pixels,
three in five are 0 in a batch of three images."""

TEMPORARIES = 3
"""What a layer holds at a time, in sizes of its output: the output, what it saves for backward, and a temporary."""


class NotApplicable(Exception):  # noqa: N818 - no error: the loop takes over
    """The coordinates of a parameter cannot be perturbed together; the message says why."""


class Batched:
    """The batched differences of a network's loss on one batch.

    Parameters
    ----------
    net : Differentiable
        In float64; its parameters are perturbed in place, and restored.
    x, t : array
        A batch and its labels, on the network's device.
    h : float
        Half the step.
    rounding : float
        What rounding may add to a difference.
    memory : int
        Bytes that the copies may take at a time.
    """

    def __init__(self, net: Differentiable, x: Array, t: Array, h: float, rounding: float, memory: int) -> None:
        self.net, self.x, self.t = net, x, t
        self.h, self.rounding = h, rounding
        self.memory = min(memory, CACHE) if is_on_host(x) else memory
        row = net.row
        self.is_row = row is not None
        self.inputs: dict[Layer, Array] = {}
        self.outputs: dict[Layer, Array] = {}
        self.behind: dict[Layer, list[Layer]] = {}
        self.scores = self._go_through(row or [], x, [])

    def differences(self, layer: Layer, attribute: str) -> tuple[Array, Array]:
        """Return the central differences of one parameter, and where they straddle a kink.

        Raises
        ------
        NotApplicable
            If the layer does not say what its parameter reaches, a layer behind does not treat samples one by one,
            or the result at some random coordinate is not what the whole network gives for it alone.
        """
        behind = self._layers_behind(layer, attribute)
        colouring = _Colouring(layer, attribute, self.inputs[layer], self.outputs[layer], self.h)
        xp, steps = self.net.device.xp, colouring.steps
        values, straddles = xp.zeros(steps.shape), xp.zeros(steps.shape, dtype=bool)
        for rows, columns in _chunks(steps.shape, self._copies_at_a_time(layer, behind)):
            changed_rows, copies = colouring.perturbed_copies(rows, columns)
            if len(changed_rows):
                losses, crossings = self._run(behind, copies)
                values[changed_rows, columns] = (losses[:, 0] - losses[:, 1]) / steps[changed_rows, columns]
                straddles[changed_rows, columns] = crossings
        found = colouring.in_place_of_parameter(values), colouring.in_place_of_parameter(straddles)
        self._compare_with_loop(layer, attribute, found[0])
        return found

    def _go_through(self, row: list[Layer], x: Array, behind: list[Layer]) -> Array:
        """Keep what each layer of a row is given, what it makes of it, and what comes behind it, `behind` at last."""
        for place, layer in enumerate(row):
            self.behind[layer] = [*row[place + 1 :], *behind]
            self.inputs[layer] = x
            if isinstance(layer, Residual):
                way_around = _Adding(x)
                self.outputs[way_around] = x
                self._go_through([*layer.parts.values()], x, [way_around, *self.behind[layer]])
            x = self.outputs[layer] = layer.forward(x, True)
        return x

    def _layers_behind(self, layer: Layer, attribute: str) -> list[Layer]:
        if not self.is_row:
            raise NotApplicable(f"{type(self.net).__name__} is no row of layers")
        if layer not in self.behind:
            raise NotApplicable(f"{layer.name} is a part of a layer that is not known to be a row")
        if attribute not in layer.reach:
            raise NotApplicable(f"{layer.name} does not declare what {attribute} reaches")
        if layer.activation_pattern() is not None:
            raise NotApplicable(f"{layer.name} has kinks of its own")
        if self.net.last_layer.activation_pattern() is not None:
            raise NotApplicable(f"{self.net.last_layer.name} has kinks of its own")
        parameter, output = getattr(layer, attribute).shape, self.outputs[layer].shape
        for axis, to in layer.reach[attribute].items():
            if not -len(output) <= to < len(output) or output[to] != parameter[axis]:
                raise NotApplicable(
                    f"{layer.name} declares that axis {axis} of {attribute} {parameter} numbers the same as axis {to} "
                    f"of its output {output}"
                )
        for other in self.behind[layer]:
            if not other.samplewise:
                raise NotApplicable(f"{other.name} behind it does not declare to treat samples one by one")
        return self.behind[layer]

    def _copies_at_a_time(self, layer: Layer, behind: list[Layer]) -> int:
        """Return how many copies of a layer's output fit the memory, with all that the layers behind make of them."""
        size: int = sum(self.outputs[other].nbytes for other in (layer, *behind)) + self.scores.nbytes
        return self.memory // max(TEMPORARIES * size, 1)

    def _run(self, behind: list[Layer], copies: Array) -> tuple[Array, Array]:
        """Return the losses (rows, 2, columns) of the copies, and where a unit is on another side of its kink."""
        pairs = copies.shape[:3]
        xp = self.net.device.xp
        crossings = xp.zeros((pairs[0], pairs[2]), dtype=bool)
        y = copies.reshape(-1, *copies.shape[4:])
        for layer in behind:
            y = layer.forward(y, True)
            if (pattern := layer.activation_pattern()) is not None:
                pattern = pattern.reshape(*pairs, -1)
                crossings |= (pattern[:, 0] != pattern[:, 1]).any(axis=-1)
        losses = self.net.last_layer.forward_each(y.reshape(-1, copies.shape[3], *y.shape[1:]), self.t)
        return losses.reshape(pairs), crossings

    def _compare_with_loop(self, layer: Layer, attribute: str, values: Array) -> None:
        """Check what the layers declare, and all of the above, at random coordinates of the parameter."""
        parameter = getattr(layer, attribute)
        chosen = np.random.default_rng(0).choice(parameter.size, min(PROBES, parameter.size), replace=False)
        indices = list(zip(*np.unravel_index(chosen, parameter.shape), strict=True))
        alone, _ = central_differences(
            lambda _: self.net.loss(self.x, self.t, train=True), parameter, self.h, indices=indices
        )
        places = tuple(np.array(indices, dtype=int).reshape(len(indices), -1).T)
        worst = float(abs(asnumpy(alone)[places] - asnumpy(values)[places]).max(initial=0.0))
        if not worst <= self.rounding + 1e-9 * float(abs(values).max()):
            raise NotApplicable(
                f"perturbed together, its coordinates give other differences than alone (by {worst:.1e}): {layer.name} "
                "declares a wrong reach, or a layer behind does not treat samples one by one"
            )


class _Adding(Layer):
    """The end of a residual block: adds what the block was given to each copy of what it makes of that."""

    samplewise = True

    def __init__(self, x: Array) -> None:
        self.x = x

    def forward(self, y: Array, train: bool = True) -> Array:
        return (y.reshape(-1, *self.x.shape) + self.x).reshape(y.shape)


class _Colouring:
    """A parameter's coordinates in groups (rows) whose members (columns) reach disjoint slices of the layer's output.

    Along the axes that the layer's reach names, coordinates are members of a group; along the others they are not.
    """

    def __init__(self, layer: Layer, attribute: str, x: Array, base: Array, h: float) -> None:
        reach = layer.reach[attribute]
        parameter = getattr(layer, attribute)
        xp = get_array_module(parameter)
        self.layer, self.x, self.base = layer, x, base
        self.member_axes = tuple(reach)
        self.output_axes = [axis % base.ndim for axis in reach.values()]
        self.theta = xp.moveaxis(parameter, self.member_axes, self._last_axes())  # a view: (groups ..., members ...)
        split = parameter.ndim - len(reach)
        self.groups, self.members = list(np.ndindex(self.theta.shape[:split])), self.theta.shape[split:]
        self.original, self.upper, self.lower = self.theta.copy(), self.theta + h, self.theta - h
        self.steps = (self.upper - self.lower).reshape(len(self.groups), math.prod(self.members))
        # By unequal amounts, so that the effects of several groups do not cancel.
        self.unequal = self.theta + xp.asarray(np.random.default_rng(0).uniform(0.5 * h, h, self.theta.shape))

    def perturbed_copies(self, rows: range, columns: slice) -> tuple[Array, Array]:
        """Return the rows that change the output at all, and copies of it with the slices of one coordinate changed.

        Returns
        -------
        rows : (R,) integers
        copies : (R, 2, K, *output's shape)
            For each row and for +h and -h, one copy for each of the K columns.
        """
        xp = get_array_module(self.base)
        outputs = xp.empty((len(rows), 2, *self.base.shape), self.base.dtype)
        outputs[...] = self.base
        for start in range(0, len(rows), SCREEN):
            several = rows[start : start + SCREEN]
            if len(several) == 1 or bool((self._output_with(several, self.unequal) != self.base).any()):
                for row in several:
                    for side, perturbed in enumerate((self.upper, self.lower)):
                        outputs[row - rows.start, side] = self._output_with((row,), perturbed)
        changed = np.flatnonzero(asnumpy((outputs != self.base).reshape(len(rows), -1).any(axis=1)))
        outputs = outputs[xp.asarray(changed)]
        copies = self._insert(outputs, np.unravel_index(np.arange(columns.start, columns.stop), self.members))
        return xp.asarray(changed + rows.start), copies

    def in_place_of_parameter(self, table: Array) -> Array:
        """Return a table of (groups, members) in the parameter's shape."""
        xp = get_array_module(table)
        return xp.ascontiguousarray(xp.moveaxis(table.reshape(self.theta.shape), self._last_axes(), self.member_axes))

    def _output_with(self, rows: Iterable[int], perturbed: Array) -> Array:
        """Return the layer's output with some groups of the parameter as in `perturbed`."""
        groups = [self.groups[row] for row in rows]
        try:
            for group in groups:
                self.theta[group] = perturbed[group]
            return self.layer.forward(self.x, True)
        finally:
            for group in groups:
                self.theta[group] = self.original[group]

    def _insert(self, outputs: Array, members: tuple[np.ndarray, ...]) -> Array:
        """Make copies of the base output, each with the slice of one member taken from the perturbed outputs."""
        xp = get_array_module(outputs)
        columns = len(members[0]) if members else 1
        copies = xp.empty((len(outputs), 2, columns, *self.base.shape), self.base.dtype)
        copies[...] = self.base
        # Slices along the output's axes that the members number, moved to the front of the output's axes.
        front = range(len(self.output_axes))
        target = xp.moveaxis(copies, [3 + a for a in self.output_axes], [3 + i for i in front])
        source = xp.moveaxis(outputs, [2 + a for a in self.output_axes], [2 + i for i in front])
        where = tuple(xp.asarray(index) for index in members)
        target[:, :, xp.arange(columns), *where] = source[:, :, *(where or (None,))]
        return copies

    def _last_axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.member_axes), 0))


def _chunks(table: tuple[int, int], copies: int) -> Iterator[tuple[range, slice]]:
    """Cut a table of coordinates into blocks of at most so many copies, two for each: of whole rows where they fit."""
    rows, columns = table
    if 2 * columns <= copies:
        height = copies // (2 * columns)
        for start in range(0, rows, height):
            yield range(start, min(start + height, rows)), slice(0, columns)
    else:
        width = max(copies // 2, 1)
        for row in range(rows):
            for start in range(0, columns, width):
                yield range(row, row + 1), slice(start, min(start + width, columns))
