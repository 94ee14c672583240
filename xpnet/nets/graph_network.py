"""Networks from graphs: skip connections, branches, shared weights."""

from typing import Any, NamedTuple

from xpnet.device import Device
from xpnet.graph import Constant, Graph, Input, Value
from xpnet.kernels import call
from xpnet.layers import Layer, Loss
from xpnet.layers.members import name_by_class
from xpnet.nets.network import Network
from xpnet.parameters import ParameterVector
from xpnet.typing import Array, DTypeLike

__all__ = ["GraphNetwork"]


class _Call(NamedTuple):
    """One application of a layer. Values are numbered in the order of the graph."""

    layer: Layer
    owner: Layer
    sources: tuple[int, ...]
    needs_gradient: tuple[bool, ...]
    target: int


class GraphNetwork(Network):
    """A network from a graph that ends in a loss.

    The layers are named by class and running number, in the order of the graph: ``Affine1``, ``AddLayer1`` ... All
    applications of one layer share its parameters, and their gradients are added.

    Parameters
    ----------
    loss : Value
        A loss layer applied to scores and to an `Input`, the labels. The scores depend on one other `Input`, the
        samples, and on constants. Neither input needs a value.
    device, dtype
        As in `Network`.

    Raises
    ------
    ValueError
        If the graph has another form.

    Examples
    --------
    >>> from xpnet.graph import Input
    >>> from xpnet.layers import Affine, Relu, SoftmaxWithLoss
    >>> x, t = Input("x"), Input("t")
    >>> h = Relu()(Affine.from_sizes(784, 50, rng=0)(x))
    >>> h = h + Relu()(Affine.from_sizes(50, 50, std="he", rng=1)(h))
    >>> net = GraphNetwork(SoftmaxWithLoss()(Affine.from_sizes(50, 10, rng=2)(h), t))
    >>> list(net.layers)
    ['Affine1', 'Relu1', 'Affine2', 'Relu2', 'AddLayer1', 'Affine3']
    """

    def __init__(self, loss: Value, *, device: Device | str | None = None, dtype: DTypeLike | None = None) -> None:
        if not isinstance(loss, Value) or not isinstance(loss.layer, Loss):
            raise ValueError(
                f"loss must be a loss layer applied to graph values, such as SoftmaxWithLoss()(y, t), got {loss!r}"
            )
        scores, labels = loss.inputs
        if not isinstance(labels, Input):
            raise ValueError(f"the labels of {loss.layer.name} must be an Input, got {labels!r}")
        graph = Graph(scores)
        samples = [value for value in graph.values if isinstance(value, Input)]
        if len(samples) != 1 or samples[0] is labels:
            found = ", ".join(repr(value.name) for value in samples) or "none"
            raise ValueError(f"the scores must be computed from one Input besides the labels, found {found}")
        place = {value: i for i, value in enumerate(graph.values)}
        self._size, self._input = len(place), place[samples[0]]
        self._constants = [(place[v], v.value) for v in graph.values if isinstance(v, Constant)]
        self._calls = _calls(graph, place)
        owners = dict.fromkeys(call.owner for call in self._calls)
        super().__init__(name_by_class(owners), loss.layer, device=device, dtype=dtype)

    def predict(self, x: Array, train: bool = False) -> Array:
        with self.device.activate():
            values: list[Any] = [None] * self._size
            values[self._input] = self.as_input(x)
            for i, constant in self._constants:
                values[i] = constant
            for layer, _, sources, _, target in self._calls:
                inputs = [values[i] for i in sources]
                values[target] = call(layer, "forward", *inputs, *([train] if len(inputs) == 1 else []))
            return values[-1]

    def backward(self, dout: Array) -> None:
        grads: list[Any] = [None] * self._size
        grads[-1] = dout
        for layer, _, sources, needs_gradient, target in reversed(self._calls):
            grad = grads[target]
            if not any(needs_gradient):
                if layer.parameters():
                    call(layer, "backward_parameters", grad)
                continue
            computed = call(layer, "backward", grad)
            for i, needed, part in zip(
                sources, needs_gradient, computed if isinstance(computed, tuple) else (computed,), strict=True
            ):
                if needed:
                    grads[i] = part if grads[i] is None else grads[i] + part

    def nodes(self) -> list[tuple[Any, tuple[int, ...]]]:
        """Return the nodes in order: a layer's name and the numbers of its inputs, or a constant, or None for x."""
        names = {layer: name for name, layer in self.layers.items()}
        nodes: list[tuple[Any, tuple[int, ...]]] = [(None, ())] * self._size
        for i, constant in self._constants:
            nodes[i] = constant, ()
        for _, owner, sources, _, target in self._calls:
            nodes[target] = names[owner], sources
        return nodes

    @property
    def row(self) -> list[Layer] | None:
        cls = type(self)
        is_own = cls.predict is GraphNetwork.predict and cls.backward is GraphNetwork.backward
        straight = is_own and all(
            call.sources == (call.target - 1,) and call.layer is call.owner for call in self._calls
        )
        return list(self.layers.values()) if straight else None

    def _first_layers(self) -> list[Layer]:
        return [call.layer for call in self._calls if self._input in call.sources]

    def _bind(self) -> None:
        super()._bind()
        for layer, owner, *_ in self._calls:
            if layer is not owner:
                layer.share_parameters(owner)
                layer.place = owner.place
        on_device = self.device.asarray
        self._constants = [(i, on_device(c, self.dtype) if getattr(c, "shape", ()) else c) for i, c in self._constants]

    def collect_gradients(self, grads: ParameterVector) -> None:
        super().collect_gradients(grads)
        for layer, owner, *_ in self._calls:
            if layer is not owner:
                copies = dict(zip(owner.modules().values(), layer.modules().values(), strict=True))
                for slot in self.slots:
                    if slot.layer in copies:
                        grads[slot.name] += getattr(copies[slot.layer], slot.gradient)

    def activation_patterns(self) -> list[Array]:
        patterns = (layer.activation_pattern() for layer in (*(call.layer for call in self._calls), self.last_layer))
        return [pattern for pattern in patterns if pattern is not None]


def _calls(graph: Graph, place: dict[Value, int]) -> list[_Call]:
    calls, leads_to_parameters = [], set[int]()
    used = {value.layer for value in graph.values}
    for value in graph.values:
        layer, owner = value.layer, value.shared
        if layer is None or owner is None:
            continue
        if owner not in used:  # its own node is outside this graph, such as a first try
            layer = owner
            used.add(owner)
        sources = tuple(place[source] for source in value.inputs)
        needs_gradient = tuple(i in leads_to_parameters for i in sources)
        if any(needs_gradient) or layer.parameters():
            leads_to_parameters.add(place[value])
        calls.append(_Call(layer, owner, sources, needs_gradient, place[value]))
    return calls
