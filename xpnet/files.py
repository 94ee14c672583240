"""Atomic writes of files; named arrays in ``.npz`` files."""

import contextlib
import errno
import io
import math
import os
import stat
import struct
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

__all__ = ["TEMPORARY", "StoredArray", "save_arrays", "stored_arrays", "written_atomically"]

TEMPORARY = ".xpnet-"
"""How the names of temporary files begin. The file's own name may have the greatest length already."""

LARGEST_HEADER = 12 + 10_000
"""Bytes of the longest ``.npy`` header that NumPy reads."""

DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    SyntaxError,
    tokenize.TokenError,
    EOFError,
    OverflowError,
    RuntimeError,  # a method of compression that is not there, an encrypted array, an expression too deep
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What zipfile, zlib and NumPy's parser raise for damaged files."""


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
    try:
        if target.exists() and not target.is_file():
            with open(target, "wb") as stream:
                yield stream
        else:
            if target.exists() and not target.stat().st_mode & 0o222:
                raise PermissionError(errno.EACCES, "The file is read-only")
            if not target.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
            with _replacing(target) as stream:
                yield stream
    except OSError as error:
        if error.filename is None or Path(str(error.filename)).name.startswith(TEMPORARY):
            error.filename = str(file)
        raise


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Context with a temporary file that takes the place of `target` at the end, and is removed after an error."""
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=TEMPORARY)
    try:
        with open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync_folder(target.parent)


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


@dataclass(frozen=True)
class StoredArray:
    """An array in an ``.npz`` file that is not read yet.

    Attributes
    ----------
    name : str
        Its name.
    shape : tuple of int
    dtype : dtype
        As its header says.
    read : callable
        Reads the array, of this shape and dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]


@contextlib.contextmanager
def stored_arrays(file: str | Path) -> Iterator[dict[str, StoredArray]]:
    """Context with the arrays of an ``.npz`` file by name. Only their headers are read, at most some kilobytes each.

    Raises
    ------
    ValueError
        If the file is damaged, or not an ``.npz`` file. The arrays' ``read`` raises it too.
    OSError
        If the file cannot be read.
    """
    if not isinstance(file, (str, os.PathLike)):  # open would take a number for an open file
        raise TypeError(f"file must be a path, got {type(file).__name__}")
    with open(file, "rb") as stream:
        with _damage_named(file):
            archive = zipfile.ZipFile(stream)
        with archive:
            with _damage_named(file):
                found = [_stored_array(file, archive, member) for member in archive.infolist()]
            arrays = {array.name: array for array in found}
            if len(arrays) < len(found):
                raise ValueError(f"{file} is not a complete .npz file: it has a name twice")
            yield arrays


def _stored_array(file: str | Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> StoredArray:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} in it is no .npy file")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others may allocate gigabytes
        raise ValueError(f"{member.filename!r} in it is compressed by another method than deflate")
    with archive.open(member) as stream:
        start = io.BytesIO(stream.read(LARGEST_HEADER))
    version = np.lib.format.read_magic(start)
    parse = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if parse is None:
        raise ValueError(f"{member.filename!r} in it has the unknown version {version} of the format")
    shape, _, dtype = parse(start)
    size = start.tell() + math.prod(shape) * dtype.itemsize
    if member.file_size != size or dtype.hasobject:
        raise ValueError(f"{member.filename!r} in it has {member.file_size:,} bytes, its header {dtype} {shape}")

    def read() -> np.ndarray:
        with _damage_named(file), archive.open(member) as stream:
            values: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):  # reads to the end, where the checksum is compared
                raise ValueError(f"{member.filename!r} in it is too long")
            return values

    return StoredArray(member.filename.removesuffix(".npy"), shape, dtype, read)


@contextlib.contextmanager
def _damage_named(file: str | Path) -> Iterator[None]:
    """Context in which the errors that a damaged ``.npz`` file causes become a ValueError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:  # which is a seek to where no file has bytes
            raise
        raise ValueError(f"{file} is not a complete .npz file: {error}") from error
    except DAMAGE as error:
        raise ValueError(f"{file} is not a complete .npz file: {error}") from error
