"""Loops of the gates of recurrent layers, in float32.

Numba alone computes a tanh at a time. These loops compute several, by a quotient of polynomials.
"""

import functools
from typing import Any

import numpy as np

from xpnet.kernels.gates import DENOMINATOR, NUMERATOR, TANH_LIMIT
from xpnet.kernels.numba.compiling import are_compact, compiled, inlined
from xpnet.typing import Array

__all__ = ["gru_step", "gru_step_gradient", "lstm_step", "lstm_step_gradient"]

fused = functools.partial(compiled, fastmath={"contract"})
"""Decorator of loops with fused multiply-adds, which shorten the polynomials and round once less."""

HALF, ONE, LIMIT = (np.float32(number) for number in (0.5, 1.0, TANH_LIMIT))
P, Q = (tuple(np.float32(number) for number in numbers) for numbers in (NUMERATOR, DENOMINATOR))


def lstm_step(a: Array, product: Array, c: Array, gates: Array, c_new: Array, h_new: Array) -> Any:
    return _run(_lstm_step, a, product, c, gates, c_new, h_new)


def lstm_step_gradient(gates: Array, c: Array, dh: Array, dc: Array, da: Array) -> Any:
    return _run(_lstm_step_gradient, gates, c, dh, dc, da)


def gru_step(a: Array, product: Array, bn: Array, h: Array, gates: Array, h_new: Array) -> Any:
    return _run(_gru_step, a, product, bn, h, gates, h_new)


def gru_step_gradient(gates: Array, h: Array, dh: Array, da: Array, du: Array) -> Any:
    return _run(_gru_step_gradient, gates, h, dh, da, du)


def _run(loop: Any, *arrays: Array) -> Any:
    if arrays[0].dtype != "float32" or not are_compact(*arrays):
        return NotImplemented
    return loop(*arrays)


@inlined
def tanh(x):
    x = LIMIT if x > LIMIT else x  # NaN stays NaN
    x = -LIMIT if x < -LIMIT else x
    s = x * x
    p = (((P[0] * s + P[1]) * s + P[2]) * s + P[3]) * s + P[4]
    q = ((((Q[0] * s + Q[1]) * s + Q[2]) * s + Q[3]) * s + Q[4]) * s + Q[5]
    y = x * p / q
    y = ONE if y > ONE else y
    return -ONE if y < -ONE else y


@fused
def _lstm_step(a, product, c, gates, c_new, h_new):
    N, H = c.shape
    for n in range(N):
        for gate in range(4):
            row, added, out = a[n, gate * H : (gate + 1) * H], product[n, gate * H : (gate + 1) * H], gates[gate, n]
            scale = ONE if gate == 2 else HALF
            rest = ONE - scale
            for k in range(H):
                out[k] = scale * tanh(scale * (row[k] + added[k])) + rest
        i, f, g, o, tanh_c = gates[0, n], gates[1, n], gates[2, n], gates[3, n], gates[4, n]
        before, cell, h = c[n], c_new[n], h_new[n]
        for k in range(H):
            cell[k] = f[k] * before[k] + i[k] * g[k]
            tanh_c[k] = tanh(cell[k])
            h[k] = o[k] * tanh_c[k]


@fused
def _lstm_step_gradient(gates, c, dh, dc, da):
    N, H = c.shape
    for n in range(N):
        i, f, g, o, tanh_c = gates[0, n], gates[1, n], gates[2, n], gates[3, n], gates[4, n]
        di, df, dg, do = da[n, :H], da[n, H : 2 * H], da[n, 2 * H : 3 * H], da[n, 3 * H :]
        before, dh_, dc_ = c[n], dh[n], dc[n]
        for k in range(H):
            dc_[k] += dh_[k] * o[k] * (ONE - tanh_c[k] * tanh_c[k])
        for k in range(H):
            di[k] = dc_[k] * g[k] * (i[k] * (ONE - i[k]))
        for k in range(H):
            df[k] = dc_[k] * before[k] * (f[k] * (ONE - f[k]))
        for k in range(H):
            dg[k] = dc_[k] * i[k] * (ONE - g[k] * g[k])
        for k in range(H):
            do[k] = dh_[k] * tanh_c[k] * (o[k] * (ONE - o[k]))
        for k in range(H):
            dc_[k] *= f[k]


@fused
def _gru_step(a, product, bn, h, gates, h_new):
    N, H = h.shape
    for n in range(N):
        r, z, n_, u = gates[0, n], gates[1, n], gates[2, n], gates[3, n]
        row, added, before, out = a[n], product[n], h[n], h_new[n]
        for gate in range(2):
            row_, added_, sigmoid = row[gate * H : (gate + 1) * H], added[gate * H : (gate + 1) * H], gates[gate, n]
            for k in range(H):
                sigmoid[k] = HALF * tanh(HALF * (row_[k] + added_[k])) + HALF
        row_, added_ = row[2 * H :], added[2 * H :]
        for k in range(H):
            u[k] = added_[k] + bn[k]
        for k in range(H):
            n_[k] = tanh(row_[k] + r[k] * u[k])
        for k in range(H):
            out[k] = (before[k] - n_[k]) * z[k] + n_[k]


@fused
def _gru_step_gradient(gates, h, dh, da, du):
    N, H = h.shape
    for n in range(N):
        r, z, n_, u = gates[0, n], gates[1, n], gates[2, n], gates[3, n]
        dr, dz, dn = da[n, :H], da[n, H : 2 * H], da[n, 2 * H :]
        before, dh_ = h[n], dh[n]
        for k in range(H):
            dn[k] = dh_[k] * (ONE - z[k]) * (ONE - n_[k] * n_[k])
        for k in range(H):
            dz[k] = dh_[k] * (before[k] - n_[k]) * (z[k] * (ONE - z[k]))
        for k in range(H):
            dr[k] = dn[k] * u[k] * (r[k] * (ONE - r[k]))
        for k in range(H):
            dh_[k] *= z[k]
        du[n, : 2 * H] = da[n, : 2 * H]
        du_n = du[n, 2 * H :]
        for k in range(H):
            du_n[k] = dn[k] * r[k]
