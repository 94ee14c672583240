"""MNIST, the database of handwritten digits, and data sets in the same four files."""

import os
from pathlib import Path

import numpy as np

from xpnet.datasets.idx import DatasetError, read_pair
from xpnet.functions import one_hot

__all__ = ["load_mnist"]

FILES = Path(__file__).parent / "mnist_files"


def load_mnist(
    normalize: bool = True,
    flatten: bool = True,
    one_hot_label: bool = False,
    *,
    root: str | Path | None = None,
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Load MNIST from the package, or a data set of the same format from a folder.

    Parameters
    ----------
    normalize : bool, default True
        If True, pixels are float32 in [0, 1]. If False, they are uint8 as stored, 0 to 255.
    flatten : bool, default True
        If True, images have the shape (N, 784). If False, they have a channel axis, (N, 1, 28, 28).
    one_hot_label : bool, default False
        If True, labels are one-hot, float32 (N, 10). If False, they are class ids, int64 (N,).
    root : str or Path, optional
        Folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, plain or ``.gz``: Fashion-MNIST, KMNIST or your own. Images may be of any size.

    Returns
    -------
    (x_train, t_train), (x_test, t_test)
        New arrays on the host. MNIST has 60,000 and 10,000 samples.

    Raises
    ------
    DatasetError
        If a file is missing or damaged, or the four files do not match.
    """
    if not (root is None or isinstance(root, (str, os.PathLike))):
        raise TypeError(f"root must be the path of a folder, got {type(root).__name__}")
    root = FILES if root is None else Path(root)
    x_train, t_train = _read_part(root, "train")
    x_test, t_test = _read_part(root, "t10k")
    if x_train.shape[1:] != x_test.shape[1:]:
        raise DatasetError(
            f"{root}: training images are {x_train.shape[1:]} pixels large, test images {x_test.shape[1:]}"
        )
    num_classes = int(max(t_train.max(initial=0), t_test.max(initial=0))) + 1

    def images(x: np.ndarray) -> np.ndarray:
        if normalize:
            x = np.divide(x, 255.0, dtype="float32")
        return x.reshape(len(x), -1) if flatten else x[:, None]

    def labels(t: np.ndarray) -> np.ndarray:
        return one_hot(t, num_classes) if one_hot_label else t.astype("int64")

    return (images(x_train), labels(t_train)), (images(x_test), labels(t_test))


def _read_part(root: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    return read_pair(_find(root, f"{part}-images-idx3-ubyte"), _find(root, f"{part}-labels-idx1-ubyte"))


def _find(root: Path, name: str) -> Path:
    """Return the path of the file called `name`, plain or ``.gz``, spelled with ``-idx`` or ``.idx``."""
    for candidate in (f"{name}.gz", name, f"{name.replace('-idx', '.idx')}.gz", name.replace("-idx", ".idx")):
        if (root / candidate).is_file():
            return root / candidate
    raise DatasetError(f"{root / name}: no such file, plain or .gz")
