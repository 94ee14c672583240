"""IDX, the file format of MNIST and related data sets.

A file has two zero bytes, a byte for the type, a byte for the number of dimensions, each dimension as a big-endian
uint32, and the big-endian values in C order (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import os
import stat
import zlib
from io import BufferedIOBase
from pathlib import Path

import numpy as np

__all__ = ["DatasetError", "read_idx", "read_pair"]

LARGEST_RATIO = 1032
"""Most bytes that gzip makes of one (https://zlib.net/zlib_tech.html)."""

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DatasetError(ValueError):
    """A data file is missing or damaged, or the files of a data set do not match. The message names the file."""


def read_idx(file: str | Path, ndim: int | None = None) -> np.ndarray:
    """Read an IDX file, plain or compressed with gzip.

    Memory is allocated for the array alone, and only if the file may hold as many values as its header says.

    Parameters
    ----------
    file : str or Path
        Path of the file. With the suffix ``.gz`` it must be a gzip file; with any other it may be one.
    ndim : int, optional
        Expected number of dimensions. If given, the dtype must be uint8, as in MNIST.

    Returns
    -------
    array
        Writeable array in native byte order.

    Raises
    ------
    DatasetError
        If the file cannot be read, is damaged or truncated, or has bytes left over.
    """
    try:
        with open(file, "rb") as plain:
            compressed = plain.peek(2)[:2] == b"\x1f\x8b"
            if Path(file).suffix == ".gz" and not compressed:
                raise DatasetError(f"{file}: not a gzip file, though its name says so")
            about = os.fstat(plain.fileno())
            most = about.st_size * (LARGEST_RATIO if compressed else 1) if stat.S_ISREG(about.st_mode) else None
            if not compressed:
                return _parse(file, plain, ndim, most)
            with gzip.open(plain) as stream:
                return _parse(file, stream, ndim, most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DatasetError(f"{file}: damaged gzip file: {error}") from error
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror or error}") from error


def read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the images (N, H, W) of one IDX file and their labels (N,) of another, both uint8.

    Raises
    ------
    DatasetError
        If a file is missing or damaged, there are no images, or not as many labels.
    """
    x, t = read_idx(images, ndim=3), read_idx(labels, ndim=1)
    if len(x) != len(t):
        raise DatasetError(f"{images}: {len(x):,} images, but {labels.name} has {len(t):,} labels")
    if len(x) == 0:
        raise DatasetError(f"{images}: no images")
    return x, t


def _parse(file: str | Path, stream: BufferedIOBase, ndim: int | None, most: int | None) -> np.ndarray:
    """Read the array of a stream that has `most` bytes or fewer, if that is known."""
    start = stream.read(4)
    if len(start) < 4:
        raise DatasetError(f"{file}: {len(start)} bytes are too few for an IDX header")
    magic = int.from_bytes(start, "big")
    expected = None if ndim is None else 0x0800 + ndim
    if magic >> 16 or magic >> 8 not in DTYPES or expected not in (None, magic):
        wanted = "0x0000TTDD with a type TT of 08 to 0E" if expected is None else f"0x{expected:08X}"
        raise DatasetError(f"{file}: wrong magic number 0x{magic:08X}, expected {wanted}")
    dtype = np.dtype(DTYPES[magic >> 8])
    header = 4 + 4 * (magic & 0xFF)
    sizes = stream.read(header - 4)
    if len(sizes) < header - 4:
        raise DatasetError(f"{file}: truncated in its header, {4 + len(sizes)} of {header} bytes")
    shape = tuple(int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4))
    size = header + math.prod(shape) * dtype.itemsize
    needs = f"where the header's {shape} needs {size:,}"
    if most is not None and size > most:
        raise DatasetError(f"{file}: truncated, {most:,} bytes at most {needs}")
    try:
        values = np.empty(shape, dtype)
    except (ValueError, MemoryError) as error:  # too many dimensions for NumPy, or more than there is memory for
        raise DatasetError(f"{file}: no array can have the header's shape {shape}: {error}") from error
    found = header + _fill(values, stream)
    if found < size:
        raise DatasetError(f"{file}: truncated, {found:,} bytes {needs}")
    if stream.read(1):
        raise DatasetError(f"{file}: trailing bytes, {found:,} and more {needs}")
    return values.astype(dtype.newbyteorder("="), copy=False)


def _fill(values: np.ndarray, stream: BufferedIOBase) -> int:
    """Read values into an array until it is full or the stream ends, and return the number of bytes."""
    place = values.reshape(-1).view("uint8").data
    filled = 0
    while filled < len(place) and (count := stream.readinto(place[filled:])):
        filled += count
    return filled
