"""Texts as sequences of bytes, cut into windows for language models."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xpnet.datasets.dataset import Dataset
from xpnet.datasets.idx import DatasetError
from xpnet.settings import count
from xpnet.typing import Array

__all__ = ["BYTES", "TEXTS", "TextDataset", "Windows", "from_text", "load_text", "to_text"]

BYTES = 256
"""Number of ids: a language model of bytes reads any file."""

TEXTS = {"alice": Path(__file__).parent / "text_files" / "alice.txt"}
"""Texts of the package by name.

``"alice"`` is Lewis Carroll's "Alice's Adventures in Wonderland" (1865), in the public domain: ``alice29.txt`` of the
Canterbury Corpus, with the ends of its lines as on Unix.
"""

TEST_SHARE = 0.1
"""Share of a text, its end, that is the test set."""


@dataclass(frozen=True, eq=False)
class Windows:
    """Windows of a sequence of ids: x has `length` ids, t the same places one step later.

    Attributes
    ----------
    ids : (L,) of integers
        The sequence.
    length : int
        Number of ids of a window, T.
    """

    ids: Array
    length: int

    def __post_init__(self) -> None:
        length, dtype = count("length", self.length), getattr(self.ids, "dtype", None)
        if dtype is None or self.ids.ndim != 1 or dtype.kind not in "iu":
            got = type(self.ids).__name__ if dtype is None else f"{dtype} {self.ids.shape}"
            raise ValueError(f"Windows expected ids to be integers of shape (L,), got {got}")
        if len(self.ids) <= length:
            raise ValueError(
                f"a window of {self.length} ids and the one behind it need {self.length + 1} ids, got {len(self.ids)}"
            )

    def __len__(self) -> int:
        """Return the number of windows side by side, N."""
        return (len(self.ids) - 1) // self.length

    @property
    def starts(self) -> int:
        """Number of places where a window may start."""
        return len(self.ids) - self.length

    @property
    def x(self) -> Array:
        """The windows side by side, (N, T)."""
        return self.ids[: len(self) * self.length].reshape(len(self), self.length)

    @property
    def t(self) -> Array:
        """What follows each of their ids, (N, T)."""
        return self.ids[1 : len(self) * self.length + 1].reshape(len(self), self.length)


@dataclass(frozen=True, eq=False)
class TextDataset(Dataset):
    """A text in windows side by side. x and t are uint8 (N, T); t is x one step later.

    Attributes
    ----------
    x_train, t_train, x_test, t_test, classes
        As in `Dataset`. There are no names of classes.
    windows : Windows
        The training part, to be cut anywhere.
    """

    windows: Windows | None = None


def load_text(source: str | Path, length: int) -> TextDataset:
    """Load a text as bytes; its last tenth is the test set.

    Parameters
    ----------
    source : str or Path
        A name of `TEXTS`, or any file.
    length : int
        Number of bytes of a window.

    Raises
    ------
    DatasetError
        If there is no such file, or it is too short for a window in both parts.
    """
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"source must be a name or a path, got {type(source).__name__}")
    path = TEXTS.get(str(source), Path(source))
    try:
        ids = np.frombuffer(path.read_bytes(), "uint8")
    except OSError as error:
        names = ", ".join(TEXTS)
        raise DatasetError(f"{source}: {error.strerror or error}; a text is a file, or a name ({names})") from error
    behind = max(int(len(ids) * TEST_SHARE), length + 1)
    if len(ids) - behind <= length:
        raise DatasetError(
            f"{source}: expected at least {2 * (length + 1)} bytes, for a window in training and test set, got "
            f"{len(ids)}"
        )
    train, test = Windows(ids[:-behind], length), Windows(ids[-behind:], length)
    return TextDataset(train.x, train.t, test.x, test.t, None, train)


def from_text(text: str) -> np.ndarray:
    """Return the bytes of a text, (L,) of uint8, also those that are no UTF-8 in an argument of a command."""
    return np.frombuffer(text.encode("utf-8", "surrogateescape"), "uint8")


def to_text(ids: Array) -> str:
    """Return bytes on the host as a text; a byte that is no UTF-8 becomes a backslash escape."""
    return np.asarray(ids, "uint8").tobytes().decode("utf-8", "backslashreplace")
