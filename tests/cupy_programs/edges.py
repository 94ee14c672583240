"""Edges of an image by filters in space: `cupyx.scipy.ndimage`."""

import cupy
from cupyx.scipy import ndimage


def edges(image, sigma=1.0):
    """Return the gradient's magnitude of the smoothed image, without single bright pixels."""
    smooth = ndimage.gaussian_filter(ndimage.median_filter(image, 3), sigma)
    return cupy.hypot(ndimage.sobel(smooth, 0), ndimage.sobel(smooth, 1))
