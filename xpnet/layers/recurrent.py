"""Recurrent layers over sequences: simple, LSTM and GRU."""

from typing import Any, ClassVar, Self

import numpy as np

from xpnet import functions, initializers, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import count, generator
from xpnet.typing import Array, DTypeLike, Seed

__all__ = ["GRU", "LSTM", "RNN", "Recurrent"]


class Recurrent(Layer):
    """Base class of recurrent layers: what goes from step to step, and the products for all steps at once.

    ``forward(x)`` takes x (N, T, D) and returns the outputs h of all steps, (N, T, H). A state is an array
    (S, N, H): h, and for an LSTM also c.

    - By default a sequence begins with zeros. ``forward(x, state=s)`` begins with `s`, which counts as a constant.
    - ``advance(x, state)`` returns the outputs and the last state, for predictions piece by piece.
    - Truncated backpropagation: with a `state` of the layer, each training batch begins with the last state of the
      batch before, in the same order of sequences. ``layer.state[...] = 0.0`` begins new ones. Predictions begin with
      zeros.

    Parameters
    ----------
    Wx : (D, G H)
        Weights of the input, with the G gates side by side in PyTorch's order.
    Wh : (H, G H)
        Weights of the output of the step before.
    b : (G H,)
        Biases: the sum of PyTorch's ``bias_ih`` and ``bias_hh``.
    state : (S, N, H), optional
        Carried from one training batch to the next, for batches of N sequences. A buffer: the layer writes into it.
    """

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1

    def __init__(self, Wx: Array, Wh: Array, b: Array, state: Array | None = None) -> None:
        name = type(self).__name__
        get_array_module(Wx=Wx, Wh=Wh, b=b, state=Wh if state is None else state)
        H, width = _shape("Wh", Wh, name, "(H, M)", 2)
        if width != self.gates * H:
            raise ValueError(f"{name} expected Wh of shape (H, {self.gates} H), got ({H}, {width})")
        if _shape("Wx", Wx, name, "(D, M)", 2)[1] != width:
            raise ValueError(f"{name} expected Wx of shape (D, {width}) to go with Wh {Wh.shape}, got {Wx.shape}")
        if _shape("b", b, name, "(M,)", 1) != (width,):
            raise ValueError(f"{name} expected b of shape ({width},) to go with Wh {Wh.shape}, got {b.shape}")
        self.Wx = Wx
        self.Wh = Wh
        self.b = b
        self.state = state
        if state is not None:
            self._expect_state(state, None)
        self.samplewise = state is None

    @property
    def buffer_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the buffers: the state, if the layer carries one."""
        return () if self.state is None else ("state",)

    @classmethod
    def from_sizes(
        cls,
        input_size: int,
        hidden_size: int,
        *,
        batch_size: int | None = None,
        std: float | str = "lecun",
        rng: Seed = None,
        dtype: DTypeLike = "float32",
    ) -> Self:
        """Create a layer with random weights and zero biases, on the host.

        Parameters
        ----------
        input_size, hidden_size : int
            D and H.
        batch_size : int, optional
            Number of sequences whose state is carried from one training batch to the next; by default none is.
        std : float or str, default "lecun"
            Standard deviation of the weights, or a rule's name, see `xpnet.initializers.initial_weights`.
        rng : numpy.random.Generator or int, optional
            Random generator or seed of the weights. Pass one generator to all layers of a network.
        dtype : dtype, default "float32"
            dtype of the parameters.
        """
        D, H, rng = count("input_size", input_size), count("hidden_size", hidden_size), generator("rng", rng)
        Wx, Wh = (initializers.initial_weights((rows, cls.gates * H), std, rng, dtype) for rows in (D, H))
        N = None if batch_size is None else count("batch_size", batch_size)
        state = None if N is None else np.zeros((cls.states, N, H), dtype)
        biases = {name: np.zeros(width, dtype) for name, width in cls._biases(H).items()}
        return cls(Wx, Wh, state=state, **biases)

    def forward(self, x: Array, train: bool = True, state: Array | None = None) -> Array:
        x = self._by_time(x)
        carried = self.state if train and state is None else None
        h, last, saved = self._forward_steps(self._through_Wx(x), self._first(x, state if carried is None else carried))
        if carried is not None and not self.fixed_buffers:
            carried[...] = last
        vars(self).update(saved, x=x, h=h)
        return h[1:].transpose(1, 0, 2)

    def advance(self, x: Array, state: Array | None = None) -> tuple[Array, Array]:
        """Return the outputs for a piece of sequences, and the state behind it; saves nothing for backward.

        Parameters
        ----------
        x : (N, T, D)
            The piece.
        state : (S, N, H), optional
            The state behind the piece before; by default zeros.
        """
        x = self._by_time(x)
        h, last, _ = self._forward_steps(self._through_Wx(x), self._first(x, state))
        return h[1:].transpose(1, 0, 2), last

    def backward(self, dout: Array) -> Array:
        get_array_module(dout=dout, x=self.x)
        (T, N, D), (H, width) = self.x.shape, self.Wh.shape
        self._expect_dout(dout, (N, T, H))
        da, dah = self._backward_steps(dout.transpose(1, 0, 2))
        rows, x, h = da.reshape(T * N, width), self.x.reshape(T * N, D), self.h[:-1].reshape(T * N, H)
        self.db = rows.sum(axis=0)
        self.dWx = kernels.matmul(x.T, rows, self.out.get("dWx"))
        self.dWh = kernels.matmul(h.T, dah.reshape(T * N, width), self.out.get("dWh"))
        return kernels.matmul(rows, self.Wx.T).reshape(T, N, D).transpose(1, 0, 2)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 2 or shape[1] != len(self.Wx):
            got = ", ".join(["N", *map(str, shape)])
            raise ValueError(f"{self.name} expected x of shape (N, T, {len(self.Wx)}), got ({got})")
        return (shape[0], len(self.Wh))

    def _forward_steps(self, a: Array, state: Array) -> tuple[Array, Array, dict[str, Array]]:
        """Return h (T+1, N, H), first and last state included, the last state, and arrays to save.

        `a` = x Wx + b, (T, N, G H), may be overwritten.
        """
        raise NotImplementedError

    def _backward_steps(self, dout: Array) -> tuple[Array, Array]:
        """Return the gradients with respect to x Wx + b and to h Wh, both (T, N, G H), for dout (T, N, H)."""
        raise NotImplementedError

    @classmethod
    def _biases(cls, H: int) -> dict[str, int]:
        return {"b": cls.gates * H}

    def _by_time(self, x: Array) -> Array:
        """Return x as (T, N, D), with each step's rows next to each other in memory."""
        xp = get_array_module(x=x, Wx=self.Wx)
        x = functions.as_floating(x)
        self.output_shape(x.shape[1:])
        return xp.ascontiguousarray(x.transpose(1, 0, 2))

    def _through_Wx(self, x: Array) -> Array:  # noqa: N802
        T, N, D = x.shape
        return kernels.matmul(x.reshape(T * N, D), self.Wx, bias=self.b).reshape(T, N, self.Wx.shape[1])

    def _first(self, x: Array, state: Array | None) -> Array:
        xp = get_array_module(x=x, state=x if state is None else state)
        N = x.shape[1]
        if state is None:
            return xp.zeros((self.states, N, len(self.Wh)), self.Wh.dtype)
        self._expect_state(state, N)
        return state

    def _expect_state(self, state: Array, N: int | None) -> None:
        shape = getattr(state, "shape", None)
        if shape is None or len(shape) != 3 or shape != (self.states, shape[1] if N is None else N, len(self.Wh)):
            wanted = f"({self.states}, {'N' if N is None else N}, {len(self.Wh)})"
            got = type(state).__name__ if shape is None else f"shape {shape}"
            hint = "" if N is None else "; a layer that carries a state takes training batches of one size"
            raise ValueError(f"{self.name} expected a state of shape {wanted}, got {got}{hint}")


class RNN(Recurrent):
    """Simple recurrent layer, h_t = tanh(x_t Wx + h_t-1 Wh + b) (Elman, 1990).

    From the last step to the first: dh_t = dout_t + da_t+1 Wh^T, da_t = dh_t (1 - h_t^2). Then dx_t = da_t Wx^T,
    dWx = sum x_t^T da_t, dWh = sum h_t-1^T da_t, db = sum da_t.

    Parameters
    ----------
    Wx, Wh, b, state
        As in `Recurrent`, with G = 1.
    """

    parameter_names = ("Wx", "Wh", "b")
    saved = ("x", "h")
    samplewise = True

    def _forward_steps(self, a: Array, state: Array) -> tuple[Array, Array, dict[str, Array]]:
        xp = get_array_module(a)
        T, N, H = a.shape
        h = xp.empty((T + 1, N, H), a.dtype)
        h[0] = state[0]
        for t in range(T):
            h[t + 1] = xp.tanh(a[t] + kernels.matmul(h[t], self.Wh))
        return h, h[-1:].copy(), {}

    def _backward_steps(self, dout: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout)
        h, da = self.h[1:], xp.empty(dout.shape, dout.dtype)
        dh = 0.0
        for t in reversed(range(len(da))):
            da[t] = (dout[t] + dh) * (1.0 - h[t] * h[t])
            dh = kernels.matmul(da[t], self.Wh.T)
        return da, da


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    a_t = x_t Wx + h_t-1 Wh + b has four gates: i, f and o by the sigmoid, g by tanh, in the order i, f, g, o.
    c_t = f c_t-1 + i g, h_t = o tanh(c_t).

    From the last step to the first: dh_t = dout_t + da_t+1 Wh^T, dc_t = dh_t o (1 - tanh(c_t)^2) + dc_t+1 f_t+1,
    and the gates' gradients are di = dc_t g, df = dc_t c_t-1, dg = dc_t i, do = dh_t tanh(c_t), each times the slope
    of its gate. Then dx_t = da_t Wx^T, dWx = sum x_t^T da_t, dWh = sum h_t-1^T da_t, db = sum da_t.

    Parameters
    ----------
    Wx, Wh, b, state
        As in `Recurrent`, with G = 4. A state is h and c.
    """

    parameter_names = ("Wx", "Wh", "b")
    saved = ("x", "h", "c", "gated")
    samplewise = True
    gates = 4
    states = 2

    def _forward_steps(self, a: Array, state: Array) -> tuple[Array, Array, dict[str, Array]]:
        xp = get_array_module(a)
        T, N, H = len(a), a.shape[1], len(self.Wh)
        h, c = (xp.empty((T + 1, N, H), a.dtype) for _ in range(2))
        h[0], c[0] = state[0], state[1]
        # With sigmoid(x) = (1 + tanh(x / 2)) / 2, one tanh computes all gates of a step.
        half = _by_gate(a, H, (0.5, 0.5, 1.0, 0.5))
        rest = _by_gate(a, H, (0.5, 0.5, 0.0, 0.5))
        a *= half
        Wh, product, new = self.Wh * half, xp.empty((N, 4 * H), a.dtype), xp.empty((N, H), a.dtype)
        for t in range(T):
            gates = a[t]
            gates += kernels.matmul(h[t], Wh, product)
            xp.tanh(gates, out=gates)
            gates *= half
            gates += rest
            i, f, g, o = _split(gates, H)
            xp.multiply(f, c[t], out=c[t + 1])
            c[t + 1] += xp.multiply(i, g, out=new)
            xp.multiply(o, xp.tanh(c[t + 1], out=new), out=h[t + 1])
        return h, xp.stack([h[-1], c[-1]]), {"c": c, "gated": a}

    def _backward_steps(self, dout: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout)
        (T, N, _), H = self.gated.shape, len(self.Wh)
        i, f, g, o = _split(self.gated, H)
        tanh_c = xp.tanh(self.c[1:])
        # What the gradients of all gates are multiplied by, dc_t for i, f and g and dh_t for o, for all steps at once.
        da = xp.empty((T, N, 4 * H), dout.dtype)
        xp.multiply(self.gated, self.gated, out=da)
        slopes = _split(da, H)
        for slope, gate in zip(slopes, (i, f, 1.0, o), strict=True):
            xp.subtract(gate, slope, out=slope)
        for slope, factor in zip(slopes, (g, self.c[:-1], i, tanh_c), strict=True):
            slope *= factor
        through_h = o * (1.0 - tanh_c * tanh_c)
        dh, dc, part = (xp.zeros((N, H), dout.dtype) for _ in range(3))
        WhT = xp.ascontiguousarray(self.Wh.T)
        for t in reversed(range(T)):
            dh += dout[t]
            dc += xp.multiply(dh, through_h[t], out=part)
            by_gate = da[t].reshape(N, 4, H)
            by_gate[:, :3] *= dc[:, None]
            by_gate[:, 3] *= dh
            dc *= f[t]
            kernels.matmul(da[t], WhT, dh)
        return da, da


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al., 2014), in the form of cuDNN and PyTorch.

    With a_t = x_t Wx + b and u_t = h_t-1 Wh, in the order r, z, n:
    r = sigmoid(a_r + u_r), z = sigmoid(a_z + u_z), n = tanh(a_n + r (u_n + bn)), h_t = (1 - z) n + z h_t-1.

    From the last step to the first, each times the slope of its gate: dn = dh_t (1 - z), dz = dh_t (h_t-1 - n),
    dr = dn (u_n + bn). With du = (dr, dz, r dn): dh_t-1 = dout_t-1 + z dh_t + du Wh^T, dWh = sum h_t-1^T du and
    dbn = sum r dn. With da = (dr, dz, dn): dx_t = da_t Wx^T, dWx = sum x_t^T da_t, db = sum da_t.

    Parameters
    ----------
    Wx, Wh, b, state
        As in `Recurrent`, with G = 3. b is the sum of PyTorch's biases only for r and z; for n it is ``bias_ih``.
    bn : (H,)
        Biases within the product with r: the part n of PyTorch's ``bias_hh``.
    """

    parameter_names = ("Wx", "Wh", "b", "bn")
    saved = ("x", "h", "gated", "u")
    samplewise = True
    gates = 3

    def __init__(self, Wx: Array, Wh: Array, b: Array, bn: Array, state: Array | None = None) -> None:
        super().__init__(Wx, Wh, b, state)
        get_array_module(Wh=Wh, bn=bn)
        if _shape("bn", bn, "GRU", "(H,)", 1) != (len(Wh),):
            raise ValueError(f"GRU expected bn of shape ({len(Wh)},) to go with Wh {Wh.shape}, got {bn.shape}")
        self.bn = bn

    @classmethod
    def _biases(cls, H: int) -> dict[str, int]:
        return {"b": 3 * H, "bn": H}

    def _forward_steps(self, a: Array, state: Array) -> tuple[Array, Array, dict[str, Array]]:
        xp = get_array_module(a)
        T, N, H = len(a), a.shape[1], len(self.Wh)
        h, u = xp.empty((T + 1, N, H), a.dtype), xp.empty((T, N, H), a.dtype)
        h[0] = state[0]
        for t in range(T):
            product = kernels.matmul(h[t], self.Wh)
            u[t] = product[:, 2 * H :] + self.bn
            a[t, :, : 2 * H] = functions.sigmoid(a[t, :, : 2 * H] + product[:, : 2 * H])
            r, z, n = _split(a[t], H)
            n[...] = xp.tanh(n + r * u[t])
            h[t + 1] = (1.0 - z) * n + z * h[t]
        return h, h[-1:].copy(), {"gated": a, "u": u}

    def _backward_steps(self, dout: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout)
        (da, du), H = (xp.empty(self.gated.shape, dout.dtype) for _ in range(2)), len(self.Wh)
        dh = 0.0
        for t in reversed(range(len(da))):
            r, z, n = _split(self.gated[t], H)
            dr, dz, dn = _split(da[t], H)
            dh = dout[t] + dh
            dn[...] = dh * (1.0 - z) * (1.0 - n * n)
            dz[...] = dh * (self.h[t] - n) * z * (1.0 - z)
            dr[...] = dn * self.u[t] * r * (1.0 - r)
            du[t] = da[t]
            du[t, :, 2 * H :] *= r
            dh = dh * z + kernels.matmul(du[t], self.Wh.T)
        self.dbn = du[:, :, 2 * H :].sum(axis=(0, 1))
        return da, du


def _split(gates: Array, H: int) -> tuple[Array, ...]:
    """Return views of the gates that lie side by side."""
    return tuple(gates[..., start : start + H] for start in range(0, gates.shape[-1], H))


def _by_gate(a: Array, H: int, numbers: tuple[float, ...]) -> Array:
    """Return a row (G H,) like those of a (T, N, G H), with a number for each gate."""
    xp = get_array_module(a)
    row = xp.empty(len(numbers) * H, a.dtype)
    for part, number in zip(_split(row, H), numbers, strict=True):
        part[...] = number
    return row


def _shape(argument: str, array: Any, layer: str, form: str, axes: int) -> tuple[int, ...]:
    shape = getattr(array, "shape", None)
    if shape is None or len(shape) != axes:
        got = type(array).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"{layer} expected {argument} to be an array of shape {form}, got {got}")
    return tuple(shape)
