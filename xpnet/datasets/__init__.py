"""Data sets: MNIST, which ships with the package, and others in the same file format."""

from xpnet.datasets.idx import DatasetError, read_idx
from xpnet.datasets.mnist import load_mnist

__all__ = ["DatasetError", "load_mnist", "read_idx"]
