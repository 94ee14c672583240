"""Recurrent layers over sequences: simple, LSTM and GRU."""

from typing import Any, ClassVar, Self

import numpy as np

from xpnet import functions, initializers, kernels
from xpnet.device import get_array_module
from xpnet.layers.base import Layer
from xpnet.settings import count, fit_in_memory, generator
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
        if N is not None:
            fit_in_memory("batch_size", f"{N:,}", cls.states * N * H * np.dtype(dtype).itemsize)
        state = None if N is None else np.zeros((cls.states, N, H), dtype)
        biases = {name: np.zeros(width, dtype) for name, width in cls._biases(H).items()}
        return cls(Wx, Wh, state=state, **biases)

    def forward(self, x: Array, train: bool = True, state: Array | None = None) -> Array:
        x = self._by_time(x)
        carried = self.state if train and state is None else None
        a = self._through_Wx(x)
        h, last, saved = self._forward_steps(a, self._first(x, state if carried is None else carried))
        if carried is not None and not self.fixed_buffers:
            carried[...] = last
        vars(self).update(saved, x=x, h=h, a=a)
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
        # Backward needs no a: its memory is that of da.
        da, dah = self._backward_steps(dout.transpose(1, 0, 2), self.a)
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

        `a` = x Wx + b, (T, N, G H).
        """
        raise NotImplementedError

    def _backward_steps(self, dout: Array, da: Array) -> tuple[Array, Array]:
        """Return the gradients with respect to x Wx + b, in `da`, and to h Wh, both (T, N, G H), for dout (T, N, H)."""
        raise NotImplementedError

    @classmethod
    def _biases(cls, H: int) -> dict[str, int]:
        return {"b": cls.gates * H}

    def _by_time(self, x: Array) -> Array:
        """Return x as (T, N, D), with each step's rows next to each other in memory."""
        get_array_module(x=x, Wx=self.Wx)
        x = functions.as_floating(x)
        self.output_shape(x.shape[1:])
        N, T, D = x.shape
        rows = self._array("x", (T, N, D), x)
        rows[...] = x.transpose(1, 0, 2)
        return rows

    def _through_Wx(self, x: Array) -> Array:  # noqa: N802
        (T, N, D), width = x.shape, len(self.b)
        a = self._array("a", (T, N, width), x)
        kernels.matmul(x.reshape(T * N, D), self.Wx, a.reshape(T * N, width), bias=self.b)
        return a

    def _array(self, name: str, shape: tuple[int, ...], like: Array) -> Array:
        """Return the array of the step before (`Layer.out`), if it has this shape, or else a new one."""
        made = self.out.get(name)
        if made is None or made.shape != shape or made.dtype != like.dtype:
            made = get_array_module(like).empty(shape, like.dtype)
        return made

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
    saved = ("x", "h", "a")
    samplewise = True

    def _forward_steps(self, a: Array, state: Array) -> tuple[Array, Array, dict[str, Array]]:
        xp = get_array_module(a)
        T, N, H = a.shape
        h = self._array("h", (T + 1, N, H), a)
        h[0] = state[0]
        for t in range(T):
            kernels.matmul(h[t], self.Wh, h[t + 1])
            h[t + 1] += a[t]
            xp.tanh(h[t + 1], out=h[t + 1])
        return h, h[-1:].copy(), {}

    def _backward_steps(self, dout: Array, da: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout)
        xp.multiply(self.h[1:], self.h[1:], out=da)
        xp.subtract(1.0, da, out=da)
        dh, WhT = xp.zeros(dout.shape[1:], dout.dtype), xp.ascontiguousarray(self.Wh.T)
        for t in reversed(range(len(da))):
            dh += dout[t]
            da[t] *= dh
            kernels.matmul(da[t], WhT, dh)
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
    saved = ("x", "h", "c", "gated", "a")
    samplewise = True
    gates = 4
    states = 2

    def _forward_steps(self, a: Array, state: Array) -> tuple[Array, Array, dict[str, Array]]:
        T, N, H = len(a), a.shape[1], len(self.Wh)
        h, c = self._array("h", (T + 1, N, H), a), self._array("c", (T + 1, N, H), a)
        gated = self._array("gated", (T, 5, N, H), a)
        h[0], c[0] = state[0], state[1]
        hWh = get_array_module(a).empty((N, 4 * H), a.dtype)
        for t in range(T):
            kernels.matmul(h[t], self.Wh, hWh)
            kernels.lstm_step(a[t], hWh, c[t], gated[t], c[t + 1], h[t + 1])
        return h, get_array_module(a).stack([h[-1], c[-1]]), {"c": c, "gated": gated}

    def _backward_steps(self, dout: Array, da: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout)
        dh, dc = xp.zeros((2, *dout.shape[1:]), dout.dtype)
        WhT = xp.ascontiguousarray(self.Wh.T)
        for t in reversed(range(len(da))):
            dh += dout[t]
            kernels.lstm_step_gradient(self.gated[t], self.c[t], dh, dc, da[t])
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
    saved = ("x", "h", "gated", "a")
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
        T, N, H = len(a), a.shape[1], len(self.Wh)
        h, gated = self._array("h", (T + 1, N, H), a), self._array("gated", (T, 4, N, H), a)
        h[0] = state[0]
        hWh = get_array_module(a).empty((N, 3 * H), a.dtype)
        for t in range(T):
            kernels.matmul(h[t], self.Wh, hWh)
            kernels.gru_step(a[t], hWh, self.bn, h[t], gated[t], h[t + 1])
        return h, h[-1:].copy(), {"gated": gated}

    def _backward_steps(self, dout: Array, da: Array) -> tuple[Array, Array]:
        xp = get_array_module(dout)
        du = xp.empty_like(da)
        dh, duWhT = xp.zeros((2, *dout.shape[1:]), dout.dtype)
        WhT = xp.ascontiguousarray(self.Wh.T)
        for t in reversed(range(len(da))):
            dh += dout[t]
            kernels.gru_step_gradient(self.gated[t], self.h[t], dh, da[t], du[t])
            dh += kernels.matmul(du[t], WhT, duWhT)
        self.dbn = du[:, :, 2 * len(self.Wh) :].sum(axis=(0, 1))
        return da, du


def _shape(argument: str, array: Any, layer: str, form: str, axes: int) -> tuple[int, ...]:
    shape = getattr(array, "shape", None)
    if shape is None or len(shape) != axes:
        got = type(array).__name__ if shape is None else f"shape {shape}"
        raise ValueError(f"{layer} expected {argument} to be an array of shape {form}, got {got}")
    return tuple(shape)
