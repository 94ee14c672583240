"""Atomic writes of files; named arrays in ``.npz`` files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["load_arrays", "save_arrays", "written_atomically"]


@contextlib.contextmanager
def written_atomically(file: str | Path) -> Iterator[BinaryIO]:
    """Open a binary stream whose content becomes `file` when the block ends without an error.

    The content is written to a temporary file in the same folder, flushed to disk and renamed. A reader finds the old
    content or the new, never a part. An error leaves `file` unchanged and removes the temporary file.
    """
    file = Path(file)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)  # mkstemp makes files private; set the permissions that open() would set
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def save_arrays(file: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to an ``.npz`` file, atomically."""
    with written_atomically(file) as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]


def load_arrays(file: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz`` file, by name.

    Raises
    ------
    ValueError
        If the file is damaged, or not an ``.npz`` file.
    """
    try:
        with open(file, "rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:  # a damaged file raises errors of zipfile, zlib or NumPy's own parser
        raise ValueError(f"{file} is not a complete .npz file of parameters: {error}") from error
