"""What every data set is once it is read: samples and labels for training, and perhaps for a test."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xpnet.datasets.idx import DatasetError

__all__ = ["Dataset", "as_dataset"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples and labels on the host.

    Attributes
    ----------
    x_train, t_train : array
        Training samples (N, ...) and their labels: class ids, int64 (N,), or the targets of a regression. Images are
        uint8 (N, C, H, W), pixels from 0 to 255, which a network divides by 255.
    x_test, t_test : array or None
        The same for the test set; None if the source has none.
    classes : tuple of str or None
        Name of each class, by its id; None for a regression.
    """

    x_train: np.ndarray
    t_train: np.ndarray
    x_test: np.ndarray | None = None
    t_test: np.ndarray | None = None
    classes: tuple[str, ...] | None = None


def as_dataset(
    source: str | Path, pairs: Sequence[tuple[np.ndarray, np.ndarray]], classes: Sequence[str] | None = None
) -> Dataset:
    """Return the data set of samples and labels, those of training and perhaps those of a test.

    Parameters
    ----------
    source : str or Path
        Where they come from, for errors.
    pairs : sequence of (x, labels)
        Labels (N,) or (N, 1) of integers or strings are classes; all other arrays are targets.
    classes : sequence of str, optional
        Names of the classes by id. By default the labels that occur, sorted.

    Raises
    ------
    DatasetError
        If there are no samples, not as many labels, the two sets do not fit, or a label is none of `classes`.
    """
    for x, t in pairs:
        if x.ndim == 0 or t.ndim == 0 or len(x) != len(t) or len(x) == 0:
            raise DatasetError(f"{source}: expected as many labels as samples, got {t.shape} and {x.shape}")
        if x.dtype.kind not in "biuf":
            raise DatasetError(f"{source}: expected samples of real numbers, got {x.dtype}")
    shapes = {x.shape[1:] for x, _ in pairs}
    if len(shapes) > 1:
        raise DatasetError(f"{source}: training samples have the shape {pairs[0][0].shape[1:]}, those of the test set "
                           f"{pairs[1][0].shape[1:]}")  # fmt: skip
    labels = [t.reshape(len(t)) if t.ndim == 2 and t.shape[1] == 1 else t for _, t in pairs]
    are_classes = all(t.ndim == 1 and t.dtype.kind in "iubU" for t in labels)
    if are_classes:
        labels, classes = _class_ids(source, labels, classes)
    elif classes is not None:
        raise DatasetError(f"{source}: its labels are no classes, but {labels[0].dtype} {labels[0].shape}")
    named = None if classes is None else tuple(classes)
    x_test, t_test = (pairs[1][0], labels[1]) if len(pairs) > 1 else (None, None)
    return Dataset(pairs[0][0], labels[0], x_test, t_test, named)


def _class_ids(
    source: str | Path, labels: list[np.ndarray], classes: Sequence[str] | None
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Return the labels as class ids, and the names of the classes."""
    distinct, codes = np.unique(np.concatenate(labels), return_inverse=True)
    found = [str(name) for name in distinct]
    classes = tuple(found) if classes is None else tuple(map(str, classes))
    ids = {name: i for i, name in enumerate(classes)}
    unknown = [name for name in found if name not in ids]
    if unknown:
        raise DatasetError(
            f"{source}: the label {unknown[0]!r} is none of the {len(classes)} classes {', '.join(classes[:20])}"
        )
    t = np.array([ids[name] for name in found], "int64")[codes]
    return np.split(t, np.cumsum([len(part) for part in labels])[:-1]), classes
