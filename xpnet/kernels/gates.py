"""Gates of a step of recurrent layers, and their gradients; `xpnet.layers.recurrent` has the formulas."""

from xpnet.device import get_array_module
from xpnet.kernels.operations import kernel
from xpnet.typing import Array

__all__ = [
    "DENOMINATOR",
    "NUMERATOR",
    "TANH_LIMIT",
    "gru_step",
    "gru_step_gradient",
    "lstm_step",
    "lstm_step_gradient",
]

TANH_LIMIT = 9.02
"""For larger abs(x), tanh(x) is 1 or -1 in float32."""

NUMERATOR = (5.07613189e-08, 3.15888403e-05, 0.0040084998, 0.137853571, 1.0)
DENOMINATOR = (7.37423975e-10, 1.61746693e-06, 4.20739014e-04, 0.02773748, 0.471186895, 1.0)
"""tanh(x) / x as a quotient of polynomials in x^2, highest power first, for float32.

A least-squares fit on [0, 9.02], with weights that level the relative error (Lawson's iteration): it is 1e-9. In
float32, tanh(x) is off by up to 6 units in the last place, at most 4e-7. Compiled loops compute several values at a
time by it.
"""


@kernel
def lstm_step(a: Array, product: Array, c: Array, gates: Array, c_new: Array, h_new: Array) -> None:
    """Compute a step of an LSTM: `c_new` and `h_new` (N, H), and for its gradient `gates` (5, N, H).

    `a` (N, 4H) is x Wx + b, `product` (N, 4H) is h Wh, and `c` (N, H) the cell before. `gates` are i, f, g, o and
    tanh(c_new), each in one piece: NumPy computes with that faster than with columns of an array.
    """
    xp = get_array_module(a)
    i, f, g, o, tanh_c = gates
    xp.add(_by_gate(a, c), _by_gate(product, c), out=gates[:4])
    # With sigmoid(x) = (1 + tanh(x / 2)) / 2, one tanh computes all gates.
    for sigmoid in (gates[:2], o):
        sigmoid *= 0.5
    xp.tanh(gates[:4], out=gates[:4])
    for sigmoid in (gates[:2], o):
        sigmoid += 1.0
        sigmoid *= 0.5
    xp.multiply(f, c, out=c_new)
    c_new += xp.multiply(i, g, out=tanh_c)
    xp.multiply(o, xp.tanh(c_new, out=tanh_c), out=h_new)


@kernel
def lstm_step_gradient(gates: Array, c: Array, dh: Array, dc: Array, da: Array) -> None:
    """Compute the gradients of `lstm_step`: with respect to x Wx + b into `da` (N, 4H), and to `c` into `dc` (N, H).

    `dh` and, at first, `dc` are the gradients with respect to h_new and c_new.
    """
    xp = get_array_module(gates)
    i, f, g, o, tanh_c = gates
    da_by_gate = gates[:4] * gates[:4]
    di, df, dg, do = da_by_gate
    xp.subtract(gates[:2], da_by_gate[:2], out=da_by_gate[:2])
    xp.subtract(1.0, dg, out=dg)
    xp.subtract(o, do, out=do)
    through_h = dh * tanh_c
    do *= through_h
    through_h *= tanh_c
    xp.subtract(dh, through_h, out=through_h)
    through_h *= o
    dc += through_h
    di *= g
    df *= c
    dg *= i
    da_by_gate[:3] *= dc
    dc *= f
    _by_gate(da, c)[...] = da_by_gate


@kernel
def gru_step(a: Array, product: Array, bn: Array, h: Array, gates: Array, h_new: Array) -> None:
    """Compute a step of a GRU: `h_new` (N, H), and for its gradient `gates` (4, N, H).

    `a` (N, 3H) is x Wx + b, and `product` (N, 3H) is h Wh. `gates` are r, z, n and u = h Wh_n + bn.
    """
    xp = get_array_module(a)
    r, z, n, u = gates
    sigmoids, a, product = gates[:2], _by_gate(a, h), _by_gate(product, h)
    xp.add(a[:2], product[:2], out=sigmoids)
    sigmoids *= 0.5
    xp.tanh(sigmoids, out=sigmoids)
    sigmoids += 1.0
    sigmoids *= 0.5
    xp.add(product[2], bn, out=u)
    xp.multiply(r, u, out=n)
    n += a[2]
    xp.tanh(n, out=n)
    xp.subtract(h, n, out=h_new)
    h_new *= z
    h_new += n


@kernel
def gru_step_gradient(gates: Array, h: Array, dh: Array, da: Array, du: Array) -> None:
    """Compute the gradients of `gru_step` with respect to x Wx + b and h Wh into `da` and `du` (N, 3H).

    `dh` (N, H) is the gradient with respect to h_new at first. It becomes the part of the gradient with respect to `h`
    that does not pass h Wh.
    """
    xp = get_array_module(gates)
    r, z, n, u = gates
    slopes = gates[:3] * gates[:3]
    dr, dz, dn = slopes
    xp.subtract(gates[:2], slopes[:2], out=slopes[:2])
    xp.subtract(1.0, dn, out=dn)
    through_z = dh * z
    dz *= dh
    dz *= h - n
    dh -= through_z
    dn *= dh
    dr *= u
    dr *= dn
    dh[...] = through_z
    _by_gate(da, h)[...] = slopes
    dn *= r
    _by_gate(du, h)[...] = slopes


def _by_gate(a: Array, h: Array) -> Array:
    """Return a view (G, N, H) of an array (N, G H)."""
    N, H = h.shape
    return a.reshape(N, a.shape[1] // H, H).transpose(1, 0, 2)
