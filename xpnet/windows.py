"""Sliding windows on images, for convolution and pooling; the book's im2col and col2im."""

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

from xpnet.device import get_array_module, is_on_host
from xpnet.settings import sizes
from xpnet.typing import Array

__all__ = ["Pair", "Windows", "as_pair", "col2im", "im2col", "samples_first", "samples_last"]

Pair = tuple[int, int]
Pixel = tuple[Pair, tuple[slice, slice], tuple[slice, slice]]


def samples_last(x: Array) -> Array:
    """Return images (N, C, H, W) as a contiguous (C, H, W, N), without a copy if they have this order in memory.

    A shifted row of an image, for all samples, is then contiguous. Shifting windows costs little more than a copy, and
    products, maxima and sums run along the samples.
    """
    return get_array_module(x).ascontiguousarray(x.transpose(1, 2, 3, 0))


def samples_first(x: Array) -> Array:
    """Return (C, H, W, N) as a view (N, C, H, W), which `samples_last` undoes without a copy."""
    return x.transpose(3, 0, 1, 2)


def as_pair(owner: str, name: str, value: Any, least: int) -> Pair:
    """Return an int, or (height, width), as a pair.

    Raises
    ------
    ValueError
        If `value` is neither, or an int is less than `least`.
    """
    try:
        pair = tuple(operator.index(n) for n in (value if isinstance(value, (tuple, list)) else (value, value)))
    except TypeError:
        pair = ()
    if len(pair) != 2 or min(pair) < least:
        raise ValueError(f"{owner} expected {name} to be an int of at least {least}, or a pair of them, got {value!r}")
    return pair


@dataclass(frozen=True)
class Windows:
    """Positions of a sliding window on padded images. Each attribute is (height, width).

    Attributes
    ----------
    size : (int, int)
        Size of the window, without gaps.
    stride : (int, int)
        Pixels from one position to the next.
    pad : (int, int)
        Rows and columns added at each side.
    dilation : (int, int)
        Pixels of the image from one pixel of the window to the next.
    """

    size: Pair
    stride: Pair = (1, 1)
    pad: Pair = (0, 0)
    dilation: Pair = (1, 1)

    @property
    def extent(self) -> Pair:
        """Height and width of the window on the image, gaps included."""
        return self.dilation[0] * (self.size[0] - 1) + 1, self.dilation[1] * (self.size[1] - 1) + 1

    def places(self, height: int, width: int) -> Pair:
        """Return the number of positions, downwards and across, on images of this size.

        Raises
        ------
        ValueError
            If the window is larger than the padded image.
        """
        padded = height + 2 * self.pad[0], width + 2 * self.pad[1]
        if padded[0] < self.extent[0] or padded[1] < self.extent[1]:
            gaps = f" (dilation {self.dilation})" if self.dilation != (1, 1) else ""
            raise ValueError(f"windows of {self.extent}{gaps} do not fit images of {padded}, padding included")
        return (padded[0] - self.extent[0]) // self.stride[0] + 1, (padded[1] - self.extent[1]) // self.stride[1] + 1

    def tile(self, height: int, width: int) -> bool:
        """Return whether each pixel of images of this size is in exactly one window."""
        down, across = self.places(height, width)
        covered = down * self.size[0], across * self.size[1]
        return self.pad == (0, 0) and self.stride == self.size and covered == (height, width)

    def padded(self, x: Array, out: Array | None = None) -> Array:
        """Return images (C, H, W, N) with a border of zeros, in C order; without a copy if they are so already.

        `out` is the result of an earlier call for images of this shape. Its border must still be zero.
        """
        if self.pad == (0, 0):
            return get_array_module(x).ascontiguousarray(x)
        (C, H, W, N), (top, left) = x.shape, self.pad
        if out is None:
            out = get_array_module(x).zeros((C, H + 2 * top, W + 2 * left, N), x.dtype)
        out[:, top : top + H, left : left + W] = x
        return out

    def view(self, padded: Array) -> Array:
        """Return the windows of padded images (C, H, W, N), as a view (C, h, w, rows, columns, N)."""
        # Not sliding_window_view: CuPy's copies the window's shape to the device and waits for an answer.
        C, H, W, N = padded.shape
        of_image, of_row, of_column, of_sample = padded.strides
        places = self.places(H - 2 * self.pad[0], W - 2 * self.pad[1])
        shifts = [n * step for n, step in zip((*self.dilation, *self.stride), (of_row, of_column) * 2, strict=True)]
        seen = get_array_module(padded).lib.stride_tricks.as_strided(
            padded, (C, *self.size, *places, N), (of_image, *shifts, of_sample)
        )
        if is_on_host(seen):  # CuPy has no read-only arrays
            seen.flags.writeable = False
        return seen

    def add(self, seen: Array, out: Array, rows: range | None = None) -> None:
        """Add windows (C, h, w, rows, columns, N) to the images `out` (C, H, W, N), each value to its pixel.

        This is the adjoint of `padded` followed by `view`. With `rows`, `seen` has only these rows of positions.
        """
        for (i, j), places, pixels in self.pixels(out.shape[1], out.shape[2], rows):
            image = out[:, *pixels]
            image += seen[:, i, j, *places]

    def pixels(self, height: int, width: int, rows: range | None = None) -> tuple[Pixel, ...]:
        """List the pixels of the window, each with its positions on the image, without padding.

        Returns
        -------
        tuple of (pixel, places, image)
            pixel: (row, column) in the window, row by row. places: slices of the positions, downwards and across; with
            `rows`, relative to the first of these rows. image: slices of the image under this pixel at these positions.
        """
        down, across = self.places(height, width)
        rows = rows or range(down)
        return _pixels(self, (height, width), (rows.start, rows.stop), (0, across))

    def inside(self, axis: int, pixel: int, length: int, places: Pair) -> tuple[slice, slice]:
        """Return two slices along one axis: the positions of this pixel on the image, and the image under them."""
        stride, offset = self.stride[axis], pixel * self.dilation[axis] - self.pad[axis]
        first = max(-(offset // stride), places[0])
        stop = max(min((length - 1 - offset) // stride + 1, places[1]), first)
        start = first * stride + offset
        return slice(first - places[0], stop - places[0]), slice(start, start + (stop - first) * stride, stride)


def im2col(input_data: Array, filter_h: int, filter_w: int, stride: int | Pair = 1, pad: int | Pair = 0) -> Array:
    """Return a matrix with a row of pixels for each position of a filter on each image (section 7.4.3).

    A convolution is then one matrix product, ``im2col(x, h, w) @ W.reshape(F, -1).T``. `xpnet.layers.Convolution`
    builds this matrix as columns, with samples last, for some rows at a time.

    Parameters
    ----------
    input_data : (N, C, H, W)
        Images.
    filter_h, filter_w : int
        Size of the filter.
    stride, pad : int or (int, int)
        Pixels from one position to the next, and rows and columns of zeros at each side.

    Returns
    -------
    col : (N * H' * W', C * filter_h * filter_w)
        With H' = (H + 2 pad - filter_h) // stride + 1, and W' likewise.
    """
    windows = _filter_windows("im2col", filter_h, filter_w, stride, pad)
    images = get_array_module(input_data).asarray(input_data)
    if images.ndim != 4:
        raise ValueError(f"im2col expected input_data of shape (N, C, H, W), got {images.shape}")
    places = math.prod(windows.places(*images.shape[2:]))
    seen = windows.view(windows.padded(images.transpose(1, 2, 3, 0)))
    return seen.transpose(5, 3, 4, 0, 1, 2).reshape(len(images) * places, images.shape[1] * filter_h * filter_w)


def col2im(
    col: Array,
    input_shape: tuple[int, int, int, int],
    filter_h: int,
    filter_w: int,
    stride: int | Pair = 1,
    pad: int | Pair = 0,
) -> Array:
    """Sum rows from `im2col` into images of shape `input_shape`, each value at its pixel.

    This is the adjoint of `im2col`, not its inverse: a pixel of several rows gets their sum (section 7.4.4).
    """
    windows = _filter_windows("col2im", filter_h, filter_w, stride, pad)
    xp = get_array_module(col)
    shape = sizes("input_shape", input_shape)
    if len(shape) != 4:
        raise ValueError(f"col2im expected input_shape to be (N, C, H, W), got {shape}")
    N, C, H, W = shape
    expected = (N * math.prod(windows.places(H, W)), C * filter_h * filter_w)
    col = xp.asarray(col)
    if col.shape != expected:
        raise ValueError(f"col2im expected col of shape {expected}, got {col.shape}")
    seen = col.reshape(N, *windows.places(H, W), C, filter_h, filter_w)
    images = xp.zeros((C, H, W, N), seen.dtype)
    windows.add(seen.transpose(3, 4, 5, 1, 2, 0), images)
    return xp.ascontiguousarray(samples_first(images))


@functools.lru_cache(maxsize=1024)  # the same in every training step
def _pixels(windows: Windows, image: Pair, rows: Pair, columns: Pair) -> tuple[Pixel, ...]:
    found: list[Pixel] = []
    for i in range(windows.size[0]):
        down, vertical = windows.inside(0, i, image[0], rows)
        for j in range(windows.size[1]):
            across, horizontal = windows.inside(1, j, image[1], columns)
            found.append(((i, j), (down, across), (vertical, horizontal)))
    return tuple(found)


def _filter_windows(owner: str, h: int, w: int, stride: int | Pair, pad: int | Pair) -> Windows:
    size = as_pair(owner, "filter_h and filter_w", (h, w), 1)
    return Windows(size, as_pair(owner, "stride", stride, 1), as_pair(owner, "pad", pad, 0))
