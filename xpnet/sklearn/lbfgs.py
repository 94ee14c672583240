"""Training of a whole data set at once, by SciPy's L-BFGS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize

from xpnet.device import asnumpy
from xpnet.nets import Network
from xpnet.sklearn.base import dense

__all__ = ["STOPPED", "minimize"]

STOPPED = 99
"""SciPy's status of a minimization that `after_iteration` stopped."""


def minimize(
    net: Network,
    X: Any,
    t: np.ndarray,
    weight: np.ndarray | None,
    tol: float,
    max_iter: int,
    max_fun: int,
    after_iteration: Callable[[Any], bool],
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
    after_iteration : function
        Called with SciPy's result so far, when the network has its parameters; returns whether to stop.
    """
    device, grads = net.device, net.params.zeros_like()
    x, t = device.asarray(dense(X), net.dtype), device.asarray(t)
    w = None if weight is None else device.asarray(weight)

    def loss_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        net.params.flat[...] = device.asarray(flat, net.dtype)
        loss, _ = net.loss_and_gradient(x, t, grads, w)
        return float(loss), asnumpy(grads.flat).astype("float64")

    def callback(intermediate_result: Any) -> None:
        net.params.flat[...] = device.asarray(intermediate_result.x, net.dtype)
        if after_iteration(intermediate_result):
            raise StopIteration

    found = scipy.optimize.minimize(
        loss_and_gradient,
        asnumpy(net.params.flat).astype("float64"),
        jac=True,
        method="L-BFGS-B",
        callback=callback,
        options={"maxfun": max_fun, "maxiter": max_iter, "gtol": tol},
    )
    net.params.flat[...] = device.asarray(found.x, net.dtype)
    return found
