"""Compiled loops over rows and vectors, and the training step of a perceptron.

All are in one module: Numba's cache does not notice changes of functions that are called from another module.
"""

import numpy as np

from xpnet.kernels.numba.barrier import wait
from xpnet.kernels.numba.compiling import compiled, inlined
from xpnet.kernels.numba.perceptron import Perceptron, Rule, Samples

OTHER, DESCENT, MOMENTUM, MOMENTS = range(4)
"""Update rules of `take_steps`. `OTHER` is left to the caller."""

RELU, SIGMOID, TANH, NONE = range(4)
"""Activations behind an affine layer."""


@compiled
def gather_blocks(x, index, divisor, width, out):
    """Write ``x[index] / divisor`` into `out`, as consecutive blocks of `width` columns."""
    for n in range(len(index)):
        row = x[min(max(index[n], 0), len(x) - 1)]
        for first in range(0, len(row), width):
            part = row[first : first + width]
            place = first * len(index) + n * len(part)
            there = out[place : place + len(part)]
            for i in range(len(part)):
                there[i] = out.dtype.type(part[i]) / divisor


@inlined
def relu(x, mask, out):
    zero = x.dtype.type(0)
    for i in range(len(x)):
        mask[i] = x[i] > zero
        out[i] = zero if x[i] <= zero else x[i]  # so that NaN stays NaN


@compiled
def relu_in_place(x, mask):
    relu(x, mask, x)


@inlined
def relu_gradient(dout, mask, dx):
    for i in range(len(dout)):
        dx[i] = dout[i] * mask[i]


@compiled
def relu_gradient_in_place(dout, mask):
    relu_gradient(dout, mask, dout)


@compiled
def add_to_rows(x, b):
    for n in range(len(x)):
        for i in range(len(b)):
            x[n, i] += b[i]


@compiled
def sum_rows(x, out):
    out[:] = 0
    for n in range(len(x)):
        for i in range(len(out)):
            out[i] += x[n, i]


@compiled
def softmax_cross_entropy(x, t, y):
    loss = 0.0
    for n in range(len(x)):
        largest = x[n].max()
        right = x[n, t[n]] - largest  # read before y is written: y may be x
        total = x.dtype.type(0)
        for k in range(x.shape[1]):
            y[n, k] = np.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(x.shape[1]):
            y[n, k] /= total
        loss += np.log(total) - right
    return loss / len(x)


@compiled
def softmax_cross_entropy_gradient(y, t, scale, dx):
    for n in range(len(y)):
        for k in range(y.shape[1]):
            dx[n, k] = y[n, k] * scale
        dx[n, t[n]] -= scale


@compiled
def add_at(total, index, x):
    for n in range(len(index)):
        row = total[index[n]]
        for k in range(len(row)):
            row[k] += x[n, k]


@compiled
def _cross_entropy(x, t, y):
    """Set y to the probabilities of scores, and return the mean loss: of a softmax, or of a sigmoid for one score."""
    if x.shape[1] > 1:
        return softmax_cross_entropy(x, t, y)
    loss, one = 0.0, x.dtype.type(1)
    for n in range(len(x)):
        score = x[n, 0]
        small = np.exp(-abs(score))  # does not overflow
        loss += max(score, x.dtype.type(0)) - score * t[n] + np.log1p(small)
        y[n, 0] = (one if score > 0 else small) / (one + small)
    return loss / len(x)


@compiled
def _cross_entropy_gradient(y, t, scale, dx):
    if y.shape[1] > 1:
        softmax_cross_entropy_gradient(y, t, scale, dx)
    else:
        for n in range(len(y)):
            dx[n, 0] = (y[n, 0] - y.dtype.type(t[n])) * scale


@compiled
def sgd_update(p, g, lr):
    lr = p.dtype.type(lr)
    for i in range(len(p)):
        p[i] -= lr * g[i]


@compiled
def momentum_update(p, g, v, lr, kept, nesterov):
    lr, kept = p.dtype.type(lr), p.dtype.type(kept)
    for i in range(len(p)):
        v[i] = v[i] * kept + g[i]
        p[i] -= (v[i] * kept + g[i] if nesterov else v[i]) * lr


@compiled
def adam_update(p, g, m, v, lr, eps, beta1, beta2):
    lr, eps = p.dtype.type(lr), p.dtype.type(eps)
    new1, new2 = p.dtype.type(1 - beta1), p.dtype.type(1 - beta2)
    beta1, beta2 = p.dtype.type(beta1), p.dtype.type(beta2)
    for i in range(len(p)):
        m[i] = m[i] * beta1 + g[i] * new1
        v[i] = v[i] * beta2 + g[i] * g[i] * new2
        p[i] -= m[i] / (np.sqrt(v[i]) + eps) * lr


@compiled
def take_steps(first, end, arrivals, perceptron, samples, indices, labels, weights, rule, grads, buffers, losses):
    """Run one thread's part of training steps of a perceptron that ends in cross entropy, of a softmax or a sigmoid.

    Two threads call this at once. Each computes the gradient for half of the samples, and updates half of the
    parameters. A single thread may compute both halves. A thread's data stay in the cache of its core; a BLAS that
    shares out each product would fetch them from the other core's cache. A step has two barriers: one when both
    gradients are done, one when the parameters are updated.

    Parameters
    ----------
    first, end : int
        The halves ``range(first, end)`` that this call computes, of 0 and 1. `first` is the thread's number.
    arrivals : (2, LINE) int64
        State of the barrier; `barrier.GONE` for a thread that does not take part.
    perceptron, samples, rule : tuple
        Fields of a `Perceptron`, `Samples` and `Rule`. Numba looks up the type of a plain tuple three times faster.
    indices, labels : (S, B) int64
        The minibatches and their class ids.
    weights : (S, B) or (S, 0)
        Each sample's weight in the mean of its minibatch; none for the plain mean.
    grads : two vectors
        Buffers for the halves' gradients. With the rule `OTHER` the first one ends as their sum.
    buffers : (2, B / 2 * units)
        Buffers for the halves' outputs of all layers, and for one more output of the widest layer.
    losses : (2, S) float64
        Set to the sum of each half's losses, times their weights if there are any.
    """
    perceptron, samples, rule = Perceptron(*perceptron), Samples(*samples), Rule(*rule)
    params, size = perceptron.params, indices.shape[1]
    middle = len(params) // 2
    for step in range(len(indices)):
        if rule.kind == OTHER:  # the caller changes the parameters between the steps
            wait(arrivals, first)
        for half in range(first, end):
            part = slice(half * (size // 2), size if half else size // 2)
            mine = indices[step, part], labels[step, part], weights[step, part]
            losses[half, step] = _gradient(perceptron, samples, *mine, size, grads[half], buffers[half])
        if not wait(arrivals, first) and end - first == 1:
            return  # the other half's gradient is missing
        for half in range(first, end):
            start, stop = half * middle, len(params) if half else middle
            part = slice(start, stop)
            _add(grads[0][part], grads[1][part])
            if perceptron.weight_decay:
                decay = _add_weight_decay(perceptron, start, stop, grads[0])
                losses[half, step] += decay if weights.shape[1] else decay * size  # the caller divides by the size
            _apply(rule, step, part, params[part], grads[0][part])
        wait(arrivals, first)


@compiled
def evaluate(perceptron, samples, labels, at_a_time, buffer):
    """Return the number of correctly classified samples and the sum of losses, predicting `at_a_time` samples."""
    perceptron, samples = Perceptron(*perceptron), Samples(*samples)
    hits, loss = 0, 0.0
    for start in range(0, len(samples.rows), at_a_time):
        index = np.arange(start, min(start + at_a_time, len(samples.rows)))
        scores, _ = _scores(perceptron, samples, index, buffer)
        for n in range(len(index)):
            found = int(scores[n, 0] > 0) if scores.shape[1] == 1 else scores[n].argmax()
            hits += found == labels[index[n]]
        loss += _cross_entropy(scores, labels[start : start + len(index)], scores) * len(index)
    return hits, loss


@compiled
def _scores(perceptron, samples, index, buffer):
    """Return the scores of samples, and their end in the buffer. The buffer begins with the earlier layers' outputs."""
    layers, width, params, _ = perceptron
    n, end = len(index), len(index) * layers[0, 0]
    y = buffer[:end]
    gather_blocks(samples.rows, index, samples.divisor, width, y)
    for number, (inputs, outputs, W, b, activation) in enumerate(layers):
        given, y, end = y, buffer[end : end + n * outputs], end + n * outputs
        weights, scores = params[W : W + inputs * outputs].reshape(inputs, outputs), y.reshape(n, outputs)
        if number:
            np.dot(given.reshape(n, inputs), weights, scores)
        else:
            _multiply_blocks(given, width, weights, scores)
        add_to_rows(scores, params[b : b + outputs])
        _activate(activation, y)
    return scores, end


@compiled
def _gradient(perceptron, samples, index, labels, weights, size, grads, buffer):
    """Return the sum of samples' losses, by their weights if any, and set `grads` to the gradient of the mean."""
    layers, width, params, _ = perceptron
    n = len(index)
    dout, end = _scores(perceptron, samples, index, buffer)
    start = end - dout.size
    free = buffer[end:]
    if len(weights):
        loss = 0.0
        for i in range(n):
            row = slice(i, i + 1)
            loss += _cross_entropy(dout[row], labels[row], dout[row]) * weights[i]
            _cross_entropy_gradient(dout[row], labels[row], weights[i], dout[row])
    else:
        loss = _cross_entropy(dout, labels, dout) * n
        _cross_entropy_gradient(dout, labels, dout.dtype.type(1 / size), dout)
    for number in range(len(layers) - 1, -1, -1):
        inputs, outputs, W, b, _ = layers[number]
        weights = slice(W, W + inputs * outputs)
        start, end = start - n * inputs, start
        x, dW = buffer[start:end], grads[weights].reshape(inputs, outputs)
        sum_rows(dout, grads[b : b + outputs])
        if number:
            rows, dx = x.reshape(n, inputs), free[: n * inputs]
            np.dot(rows.T, dout, dW)
            np.dot(dout, params[weights].reshape(inputs, outputs).T, dx.reshape(n, inputs))
            _multiply_by_slope(layers[number - 1, 4], x, dx)
            dout = rows
        else:
            _multiply_transposed_blocks(x, width, dout, dW)
    return loss


@compiled
def _add_weight_decay(perceptron, start, stop, grads):
    """Add the gradient of the penalty for a range of parameters, and return the penalty of that range."""
    layers, _, params, strength = perceptron
    total = 0.0
    for inputs, outputs, W, _, _ in layers:
        part = slice(max(W, start), max(start, min(W + inputs * outputs, stop)))
        weights = params[part]
        _add_scaled(grads[part], weights, strength)
        total += np.dot(weights, weights)
    return 0.5 * strength * total


@compiled
def _activate(activation, y):
    """Apply an activation in place."""
    zero, one = y.dtype.type(0), y.dtype.type(1)
    if activation == RELU:
        for i in range(len(y)):
            y[i] = zero if y[i] <= zero else y[i]
    elif activation == SIGMOID:
        for i in range(len(y)):
            y[i] = one / (one + np.exp(-y[i]))
    elif activation == TANH:
        for i in range(len(y)):
            y[i] = np.tanh(y[i])


@compiled
def _multiply_by_slope(activation, y, dout):
    """Replace an activation's output y by its derivative there times dout, in place."""
    one = y.dtype.type(1)
    if activation == RELU:
        for i in range(len(y)):
            y[i] = dout[i] * (y[i] > 0)
    elif activation == SIGMOID:
        for i in range(len(y)):
            y[i] = dout[i] * (y[i] * (one - y[i]))
    else:
        for i in range(len(y)):
            y[i] = dout[i] * (one - y[i] * y[i])


@compiled
def _multiply_blocks(x, width, W, out):
    """Set `out` to ``x @ W``, with x in consecutive blocks of columns (`gather_blocks`)."""
    n, part = len(out), np.empty_like(out)
    for first in range(0, len(W), width):
        end = min(first + width, len(W))
        np.dot(x[first * n : end * n].reshape(n, end - first), W[first:end], part if first else out)
        if first:
            _add(out.reshape(-1), part.reshape(-1))


@compiled
def _multiply_transposed_blocks(x, width, dout, out):
    """Set `out` to ``x^T @ dout``, with x in consecutive blocks of columns."""
    n = len(dout)
    for first in range(0, len(out), width):
        end = min(first + width, len(out))
        np.dot(x[first * n : end * n].reshape(n, end - first).T, dout, out[first:end])


@compiled
def _apply(rule, step, part, p, g):
    """Update some of the parameters by their gradient."""
    if rule.kind == OTHER:
        return
    (lr, eps, decay), (coupled, decoupled, kept, also) = rule.coefficients[step], rule.settings
    if coupled:
        _add_scaled(g, p, coupled)
    if decoupled:
        _scale(p, decay)
    if rule.kind == DESCENT:
        sgd_update(p, g, lr)
    elif rule.kind == MOMENTUM:
        momentum_update(p, g, rule.state[0][part], lr, kept, also > 0)
    else:
        adam_update(p, g, rule.state[0][part], rule.state[1][part], lr, eps, kept, also)


@compiled
def _add_scaled(total, other, scale):
    scale = total.dtype.type(scale)
    for i in range(len(total)):
        total[i] += other[i] * scale


@compiled
def _scale(x, scale):
    scale = x.dtype.type(scale)
    for i in range(len(x)):
        x[i] *= scale


@compiled
def _add(total, other):
    for i in range(len(total)):
        total[i] += other[i]
