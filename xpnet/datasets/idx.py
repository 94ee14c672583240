"""IDX, the file format of MNIST and related data sets.

A file has two zero bytes, a byte for the type, a byte for the number of dimensions, each dimension as a big-endian
uint32, and the big-endian values in C order (http://yann.lecun.com/exdb/mnist/).
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

__all__ = ["DatasetError", "read_idx"]

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DatasetError(ValueError):
    """A data file is missing or damaged, or the files of a data set do not match. The message names the file."""


def read_idx(file: str | Path, ndim: int | None = None) -> np.ndarray:
    """Read an IDX file, plain or compressed with gzip.

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
    content = _read(Path(file))
    if len(content) < 4:
        raise DatasetError(f"{file}: {len(content)} bytes are too few for an IDX header")
    magic = int.from_bytes(content[:4], "big")
    expected = None if ndim is None else 0x0800 + ndim
    if magic >> 16 or magic >> 8 not in DTYPES or expected not in (None, magic):
        wanted = "0x0000TTDD with a type TT of 08 to 0E" if expected is None else f"0x{expected:08X}"
        raise DatasetError(f"{file}: wrong magic number 0x{magic:08X}, expected {wanted}")
    dtype = np.dtype(DTYPES[magic >> 8])
    header = 4 + 4 * (magic & 0xFF)
    if len(content) < header:
        raise DatasetError(f"{file}: truncated in its header, {len(content)} of {header} bytes")
    shape = tuple(int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4))
    size = header + math.prod(shape) * dtype.itemsize
    if len(content) != size:
        what = "truncated" if len(content) < size else "trailing bytes"
        raise DatasetError(f"{file}: {what}, {len(content):,} bytes where the header's {shape} needs {size:,}")
    values = np.frombuffer(content, dtype, offset=header).reshape(shape)
    return values.astype(dtype.newbyteorder("="))


def _read(file: Path) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror or error}") from error
    compressed = content[:2] == b"\x1f\x8b"
    if file.suffix == ".gz" and not compressed:
        raise DatasetError(f"{file}: not a gzip file, though its name says so")
    if not compressed:
        return content
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{file}: damaged gzip file: {error}") from error
