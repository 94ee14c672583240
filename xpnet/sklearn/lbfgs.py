"""Training of a whole data set at once, by SciPy's L-BFGS."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize

from xpnet.device import asnumpy
from xpnet.nets import Network
from xpnet.sklearn.base import dense

__all__ = ["minimize"]


def minimize(
    net: Network, X: Any, t: np.ndarray, weight: np.ndarray | None, tol: float, max_iter: int, max_fun: int
) -> Any:
    """Minimize the loss over the network's flat vector, in place; return SciPy's result.

    Parameters
    ----------
    net : Network
        The network. Each evaluation is one forward and one backward pass of all samples on its device.
    X, t, weight : arrays
        All samples, targets, and weights or None.
    tol : float
        Largest component of the gradient at which to stop.
    max_iter, max_fun : int
        Largest numbers of iterations and of evaluations.
    """
    device, grads = net.device, net.params.zeros_like()
    x, t = device.asarray(dense(X), net.dtype), device.asarray(t)
    w = None if weight is None else device.asarray(weight)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        net.params.flat[...] = device.asarray(flat, net.dtype)
        loss, _ = net.loss_and_gradient(x, t, grads, w)
        return float(loss), asnumpy(grads.flat).astype("float64")

    found = scipy.optimize.minimize(
        loss_and_gradient,
        asnumpy(net.params.flat).astype("float64"),
        jac=True,
        method="L-BFGS-B",
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
    )
    net.params.flat[...] = device.asarray(found.x, net.dtype)
    return found
