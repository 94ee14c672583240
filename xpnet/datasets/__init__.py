"""Data sets: MNIST, which ships with the package, and others from files, folders and the web."""

from xpnet.datasets.dataset import Dataset
from xpnet.datasets.idx import DatasetError, read_idx
from xpnet.datasets.images import read_image
from xpnet.datasets.loading import load_dataset, read_samples
from xpnet.datasets.mnist import load_mnist
from xpnet.datasets.text import TextDataset, Windows, load_text

__all__ = [
    "Dataset",
    "DatasetError",
    "TextDataset",
    "Windows",
    "load_dataset",
    "load_mnist",
    "load_text",
    "read_idx",
    "read_image",
    "read_samples",
]
