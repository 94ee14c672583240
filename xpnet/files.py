"""Atomic writes of files; named arrays in ``.npz`` files."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["load_arrays", "save_arrays", "written_atomically"]


@contextlib.contextmanager
def written_atomically(file: str | Path) -> Iterator[BinaryIO]:
    """Context with a binary stream, whose content becomes `file` at the end of the block.

    The content goes to a temporary file in the same folder. At the end that file is flushed to disk and renamed. After
    an error `file` is unchanged, and the temporary file is gone. A link stays a link: the file that it leads to is
    written. An existing file keeps its mode. A device or a pipe is written to directly.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    PermissionError
        If the file is read-only.
    OSError
        If it cannot be written; the error names `file`.
    """
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():
        with open(target, "wb") as stream:
            yield stream
        return
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    if target.exists() and not target.stat().st_mode & 0o222:
        raise PermissionError(errno.EACCES, "The file is read-only", str(file))
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if isinstance(error, OSError) and error.filename in (None, temporary):
            error.filename = str(file)
        raise


def _mode(file: Path) -> int:
    """Return an existing file's mode, or that of a new file: mkstemp makes files private."""
    if file.exists():
        return stat.S_IMODE(file.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that the new name survives a crash; not every system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


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
