"""The training of chapter 7 as its reader would write it, without xpnet: SimpleConvNet, by im2col.

What makes it slow is kept on purpose: float64 weights, a new array for every result, columns of all images at once for
the convolution and for the pooling, which looks for its maxima along them, one-hot labels, a backward pass down to the
image, and a second forward pass for the loss it records.
"""

from __future__ import annotations

import numpy as np


def im2col(images, size, stride):
    """Return a row for each place of a window, with the pixels it sees."""
    N, C, H, W = images.shape
    out_h, out_w = (H - size) // stride + 1, (W - size) // stride + 1
    col = np.zeros((N, C, size, size, out_h, out_w))
    for y in range(size):
        for x in range(size):
            col[:, :, y, x] = images[:, :, y : y + stride * out_h : stride, x : x + stride * out_w : stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * out_h * out_w, -1)


def col2im(col, shape, size, stride):
    """Add such rows to images of this shape."""
    N, C, H, W = shape
    out_h, out_w = (H - size) // stride + 1, (W - size) // stride + 1
    col = col.reshape(N, out_h, out_w, C, size, size).transpose(0, 3, 4, 5, 1, 2)
    images = np.zeros(shape)
    for y in range(size):
        for x in range(size):
            images[:, :, y : y + stride * out_h : stride, x : x + stride * out_w : stride] += col[:, :, y, x]
    return images


class BookConvNet:
    """Convolution - ReLU - pooling - affine - ReLU - affine - softmax with cross entropy."""

    def __init__(self, params):
        self.params = params

    def predict(self, x):
        """Return the scores, and keep what the backward pass needs."""
        p = self.params
        F, _, size, _ = p["W1"].shape
        N, _, H, _ = x.shape
        self.x, self.out = x, H - size + 1
        self.col = im2col(x, size, 1)
        z = (np.dot(self.col, p["W1"].reshape(F, -1).T) + p["b1"]).reshape(N, self.out, self.out, F)
        z = z.transpose(0, 3, 1, 2)
        self.mask1 = z <= 0
        self.a1 = z.copy()
        self.a1[self.mask1] = 0
        windows = im2col(self.a1, 2, 2).reshape(-1, 4)
        self.arg_max = np.argmax(windows, axis=1)
        pooled = np.max(windows, axis=1).reshape(N, self.out // 2, self.out // 2, F).transpose(0, 3, 1, 2)
        self.pooled_shape = pooled.shape
        self.rows = pooled.reshape(N, -1)
        z = np.dot(self.rows, p["W2"]) + p["b2"]
        self.mask2 = z <= 0
        self.a2 = z.copy()
        self.a2[self.mask2] = 0
        return np.dot(self.a2, p["W3"]) + p["b3"]

    def loss(self, x, t):
        """Return the mean cross entropy of one-hot labels."""
        scores = self.predict(x).T
        scores = scores - np.max(scores, axis=0)
        self.y = (np.exp(scores) / np.sum(np.exp(scores), axis=0)).T
        self.t = t
        return -np.sum(np.log(self.y[np.arange(len(x)), t.argmax(axis=1)] + 1e-7)) / len(x)

    def gradient(self, x, t):
        """Return the gradients by backpropagation."""
        self.loss(x, t)
        p = self.params
        dscores = (self.y - self.t) / len(x)
        grads = {"W3": np.dot(self.a2.T, dscores), "b3": np.sum(dscores, axis=0)}
        da = np.dot(dscores, p["W3"].T)
        da[self.mask2] = 0
        grads |= {"W2": np.dot(self.rows.T, da), "b2": np.sum(da, axis=0)}
        dpooled = np.dot(da, p["W2"].T).reshape(self.pooled_shape).transpose(0, 2, 3, 1)
        dmax = np.zeros((dpooled.size, 4))
        dmax[np.arange(self.arg_max.size), self.arg_max] = dpooled.flatten()
        da = col2im(dmax.reshape(dpooled.size // dpooled.shape[3], -1), self.a1.shape, 2, 2)
        da[self.mask1] = 0
        F = da.shape[1]
        dz = da.transpose(0, 2, 3, 1).reshape(-1, F)
        grads |= {"W1": np.dot(self.col.T, dz).T.reshape(p["W1"].shape), "b1": np.sum(dz, axis=0)}
        dcol = np.dot(dz, p["W1"].reshape(F, -1))
        col2im(dcol, self.x.shape, p["W1"].shape[2], 1)  # the image's gradient, which nobody reads
        return grads
