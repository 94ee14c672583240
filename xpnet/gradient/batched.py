"""Central differences of a network's parameters, many coordinates at a time.

The method colors the coordinates, after Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices"
(1974). Coordinates of one color affect disjoint slices of their layer's output. One forward pass of the layer perturbs
all of them. Each slice of the result belongs to one coordinate and gives one perturbed copy of the output. The copies
are folded into the batch axis and go through the layers behind together. So every value is a difference of real forward
passes, and backward is never used.

The weights of one input of ``Affine`` affect one unit each. So 784-50-10 takes 2 x 784 passes through the first layer
and 78,400 small batches through the second, instead of 78,400 passes through both.
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
"""Random coordinates of each parameter that are compared with differences one by one."""

CACHE = 16 * 2**20
"""Largest size of the copies on the host, in bytes: larger chunks save few calls and miss the cache."""

SCREEN = 4
"""Groups that are first perturbed all at once, and skipped if the output does not change.

In a batch of three MNIST images three in five pixels are 0, so that their weights have no effect.
"""

TEMPORARIES = 3
"""Memory of a layer, in sizes of its output: the output, arrays saved for backward, and a temporary."""


class NotApplicable(Exception):  # noqa: N818 - no error: the loop takes over
    """Raised if the coordinates of a parameter cannot be perturbed together, with the reason."""


class Batched:
    """Batched central differences of a network's loss on one batch.

    Parameters
    ----------
    net : Differentiable
        A network in float64. Its parameters are perturbed in place and restored.
    x, t : array
        A batch and its labels, on the network's device.
    h : float
        Half the step.
    rounding : float
        Largest rounding error of a difference.
    memory : int
        Largest size of the copies, in bytes.
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
        """Return the central differences of one parameter, and a mask of those across a kink.

        Raises
        ------
        NotApplicable
            If the layer does not declare the parameter's reach (`Layer.reach`), a layer behind does not compute each
            sample independently, or a random coordinate has another difference when it is perturbed alone.
        """
        behind = self._layers_behind(layer, attribute)
        coloring = _Coloring(layer, attribute, self.inputs[layer], self.outputs[layer], self.h)
        xp, steps = self.net.device.xp, coloring.steps
        values, straddles = xp.zeros(steps.shape), xp.zeros(steps.shape, dtype=bool)
        for rows, columns in _chunks(steps.shape, self._copies_at_a_time(layer, behind)):
            changed_rows, copies = coloring.perturbed_copies(rows, columns)
            if len(changed_rows):
                losses, crossings = self._run(behind, copies)
                values[changed_rows, columns] = (losses[:, 0] - losses[:, 1]) / steps[changed_rows, columns]
                straddles[changed_rows, columns] = crossings
        found = coloring.in_place_of_parameter(values), coloring.in_place_of_parameter(straddles)
        self._compare_with_loop(layer, attribute, found[0])
        return found

    def _go_through(self, row: list[Layer], x: Array, behind: list[Layer]) -> Array:
        """Run a row of layers, and save each one's input, output and the layers behind it, with `behind` at the end."""
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
                    f"{layer.name} declares that axis {axis} of {attribute} {parameter} reaches axis {to} of its "
                    f"output {output}, but the shapes do not match"
                )
        for other in self.behind[layer]:
            if layer in other.tied.values():
                raise NotApplicable(f"{other.name} uses parameters of {layer.name} too")
            if not other.samplewise:
                raise NotApplicable(f"{other.name} behind it does not declare to treat samples one by one")
        return self.behind[layer]

    def _copies_at_a_time(self, layer: Layer, behind: list[Layer]) -> int:
        """Return how many copies of a layer's output fit into memory, with the outputs of the layers behind."""
        size: int = sum(self.outputs[other].nbytes for other in (layer, *behind)) + self.scores.nbytes
        return self.memory // max(TEMPORARIES * size, 1)

    def _run(self, behind: list[Layer], copies: Array) -> tuple[Array, Array]:
        """Return the losses of the copies (rows, 2, columns), and a mask (rows, columns) of pairs across a kink."""
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
        """Check the layers' declarations: compare differences at random coordinates with those of the whole network."""
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
    """End of a residual block: adds the block's input to each copy of the output of its parts."""

    samplewise = True

    def __init__(self, x: Array) -> None:
        self.x = x

    def forward(self, y: Array, train: bool = True) -> Array:
        return (y.reshape(-1, *self.x.shape) + self.x).reshape(y.shape)


class _Coloring:
    """A parameter's coordinates in groups (rows), whose members (columns) affect disjoint slices of the output.

    Members of a group differ along the axes in the layer's reach (`Layer.reach`). Groups differ along the other axes.
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
        # Unequal amounts: the effects of several groups do not cancel.
        self.unequal = self.theta + xp.asarray(np.random.default_rng(0).uniform(0.5 * h, h, self.theta.shape))

    def perturbed_copies(self, rows: range, columns: slice) -> tuple[Array, Array]:
        """Return the rows that change the output, and copies of the output with one perturbed coordinate each.

        Returns
        -------
        rows : (R,) integers
        copies : (R, 2, K, *output's shape)
            One copy for each row, sign (+h, -h) and column (K of them).
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
        """Reshape a table (groups, members) to the parameter's shape."""
        xp = get_array_module(table)
        return xp.ascontiguousarray(xp.moveaxis(table.reshape(self.theta.shape), self._last_axes(), self.member_axes))

    def _output_with(self, rows: Iterable[int], perturbed: Array) -> Array:
        """Return the layer's output with some groups of the parameter set to those of `perturbed`."""
        groups = [self.groups[row] for row in rows]
        try:
            for group in groups:
                self.theta[group] = perturbed[group]
            return self.layer.forward(self.x, True)
        finally:
            for group in groups:
                self.theta[group] = self.original[group]

    def _insert(self, outputs: Array, members: tuple[np.ndarray, ...]) -> Array:
        """Copy the unperturbed output, and replace one member's slice in each copy by that of the perturbed outputs."""
        xp = get_array_module(outputs)
        columns = len(members[0]) if members else 1
        copies = xp.empty((len(outputs), 2, columns, *self.base.shape), self.base.dtype)
        copies[...] = self.base
        # The axes that members index, moved to the front of the output's axes.
        front = range(len(self.output_axes))
        target = xp.moveaxis(copies, [3 + a for a in self.output_axes], [3 + i for i in front])
        source = xp.moveaxis(outputs, [2 + a for a in self.output_axes], [2 + i for i in front])
        where = tuple(xp.asarray(index) for index in members)
        target[:, :, xp.arange(columns), *where] = source[:, :, *(where or (None,))]
        return copies

    def _last_axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.member_axes), 0))


def _chunks(table: tuple[int, int], copies: int) -> Iterator[tuple[range, slice]]:
    """Cut a table of coordinates into blocks of at most `copies`, two per coordinate; of whole rows if they fit."""
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
