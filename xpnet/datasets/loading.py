"""Data sets and samples from files, folders and the web, whatever their format."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from xpnet.datasets.dataset import Dataset, as_dataset
from xpnet.datasets.idx import DatasetError
from xpnet.datasets.idx_sets import find_idx_sets, read_idx_set, read_idx_values
from xpnet.datasets.images import IMAGE_SUFFIXES, read_image, read_image_folder
from xpnet.datasets.mnist import FILES
from xpnet.datasets.remote import REMOTE, fetch
from xpnet.datasets.tables import read_table
from xpnet.files import stored_arrays

__all__ = ["NAMES", "load_dataset", "read_samples"]

NAMES = ("mnist", *REMOTE)
"""Names of data sets: MNIST is in the package, the others are downloaded."""

TABLES = (".csv", ".tsv")


def load_dataset(
    source: str | Path,
    *,
    label: str | int | None = None,
    size: Sequence[int] | None = None,
    channels: int | None = None,
    classes: Sequence[str] | None = None,
    cache: str | Path | None = None,
    timeout: float = 30.0,
) -> Dataset:
    """Load a data set: by its name, from a folder, or from a file.

    - ``"mnist"`` is in the package. ``"fashion-mnist"`` and ``"kmnist"`` are downloaded once, with the extra
      ``xpnet[data]``. A name stands for the data set even if there is such a folder; ``"./kmnist"`` is the folder.
    - A folder of IDX files: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte`` and, if there is a test set,
      ``t10k-...`` or ``test-...``, plain or ``.gz``, with anything before these names. If the folder has several data
      sets, give a file of one. EMNIST's images, known by their name, are turned upright.
    - A folder of pictures with one subfolder per class, or with ``train`` and ``test`` (or ``val``) above these. Needs
      the extra ``xpnet[images]``.
    - ``.npz`` with ``x`` and ``t``, or ``x_train``, ``t_train``, ``x_test`` and ``t_test``; ``y`` for ``t`` will do.
    - ``.csv`` or ``.tsv`` with numbers and a column of labels. The values become float32, as they are: a layer
      `xpnet.layers.Normalize` in front of the network scales them.

    Labels that are integers or names become the class ids 0, 1, 2 ..., in the order of `classes`. Without `classes`,
    that is the order of the labels that occur: EMNIST's letters, 1 to 26, get the ids 0 to 25 and the names "1" to
    "26".

    Parameters
    ----------
    source : str or Path
        Name of a data set, folder or file.
    label : str or int, optional
        For CSV: the name or number of the column with the labels (`xpnet.datasets.tables.read_table`).
    size : (H, W), optional
        For folders of pictures: the size to which they are resized. Needed if they differ.
    channels : 1 or 3, optional
        For folders of pictures: gray or RGB. Needed if they differ.
    classes : sequence of str, optional
        Names of the classes by id, such as those of the data set on which a network was trained.
    cache, timeout
        For names: the folder for downloads, and the seconds to wait for a host (`xpnet.datasets.remote.fetch`).

    Raises
    ------
    DatasetError
        If there is no such data set, or it is damaged. The message names the file.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source must be a name or a path, got {type(source).__name__}")
    if isinstance(source, str) and source in NAMES:
        return _load_by_name(source, classes, cache, timeout)
    path = Path(source)
    if path.is_dir():
        pairs = read_idx_set(path) if find_idx_sets(path) else read_image_folder(path, size, channels)
    elif not path.exists():
        raise DatasetError(f"{source}: no such file or folder, and no data set of that name ({', '.join(NAMES)})")
    elif path.suffix.lower() == ".npz":
        pairs = _read_npz(path)
    elif path.suffix.lower() in TABLES:
        x, t = read_table(path, label)
        pairs = [] if t is None else [(x, t)]
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        raise DatasetError(f"{source}: a picture is no data set; give the folder above the folders of the classes")
    else:
        pairs = read_idx_set(path)
    return as_dataset(source, pairs, classes)


def read_samples(
    file: str | Path,
    *,
    size: Sequence[int] | None = None,
    channels: int | None = None,
    invert: bool | Literal["auto"] = False,
    center_digit: bool = False,
) -> np.ndarray:
    """Read the samples of one file, without labels, for predictions.

    A picture is one sample, uint8 (1, C, H, W). An IDX file of images, plain or ``.gz``, has samples (N, 1, H, W), a
    ``.npy`` file an array (N, ...), and a ``.csv`` or ``.tsv`` file a sample in each line, float32 (N, D).

    Parameters
    ----------
    file : str or Path
        The file.
    size, channels, invert, center_digit
        For pictures, as in `read_image`.

    Raises
    ------
    DatasetError
        If the file is missing or damaged. The message names it.
    """
    if not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"file must be a path, got {type(file).__name__}")
    path = Path(file)
    suffix = path.suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return read_image(path, size, channels, invert=invert, center_digit=center_digit)[None]
    if suffix in TABLES:
        return read_table(path, has_labels=False)[0]
    if suffix == ".npy":
        return _read_npy(path)
    return read_idx_values(path)


def _load_by_name(name: str, classes: Sequence[str] | None, cache: str | Path | None, timeout: float) -> Dataset:
    if name == "mnist":
        folder, names = FILES, tuple("0123456789")
    else:
        folder, names = fetch(name, REMOTE[name], cache, timeout), REMOTE[name].classes
    pairs = [(x, np.array(names)[t]) for x, t in read_idx_set(folder)]
    return as_dataset(name, pairs, names if classes is None else classes)


def _read_npz(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        with stored_arrays(path) as arrays:
            pairs = []
            for part in ("_train", "_test") if "x_train" in arrays else ("",):
                label = next((name for name in (f"t{part}", f"y{part}") if name in arrays), None)
                if f"x{part}" in arrays and label:
                    pairs.append((arrays[f"x{part}"].read(), arrays[label].read()))
                elif part != "_test" or f"x{part}" in arrays:
                    raise DatasetError(
                        f"{path}: expected the arrays x and t, or x_train and t_train, and perhaps x_test and t_test, "
                        f"got {', '.join(arrays) or 'none'}"
                    )
            return pairs
    except DatasetError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DatasetError(str(error)) from error


def _read_npy(path: Path) -> np.ndarray:
    try:
        with open(path, "rb") as stream:
            values: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, SyntaxError) as error:
        raise DatasetError(f"{path}: a damaged .npy file: {error}") from error
    if values.ndim == 0 or values.dtype.kind not in "biuf":
        raise DatasetError(f"{path}: expected samples of numbers, (N, ...), got {values.dtype} {values.shape}")
    return values
