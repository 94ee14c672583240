"""Arrays with a text in one file of the safetensors format."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from xpnet.extras import import_extra
from xpnet.files import written_atomically

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(file: str | Path, kind: str, text: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a text to a file, atomically. Needs ``xpnet[cli]``.

    Parameters
    ----------
    file : str or Path
        The file.
    kind : str
        What the file holds, such as ``"model"``: the name of the text in the file's metadata.
    text : str
        The text. A checksum (SHA-256) covers it and the arrays.
    arrays : mapping of str to array
        Arrays on the host.
    """
    save = import_extra("safetensors.numpy", "cli").save
    # safetensors writes the memory of an array that is not C-contiguous in its order there, and the byte order is lost.
    plain = {name: np.ascontiguousarray(a, a.dtype.newbyteorder("=")).reshape(a.shape) for name, a in arrays.items()}
    content = save(plain, {kind: text, "sha256": _checksum(text, plain)})
    with written_atomically(file) as stream:
        stream.write(content)


def read_tensors(file: str | Path, kind: str) -> tuple[str, dict[str, np.ndarray]]:
    """Return the text and the arrays of a file that `write_tensors` wrote.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged, or of another kind.
    """
    safetensors = import_extra("safetensors", "cli")
    if os.path.isdir(file):
        raise ValueError(f"{file} is a folder, not a {kind}")
    try:
        with safetensors.safe_open(file, framework="np") as stored:
            metadata = stored.metadata() or {}
            arrays = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no mapping
    except safetensors.SafetensorError as error:
        raise ValueError(f"{file} is not a whole {kind}: {error}") from None
    if kind not in metadata:
        raise ValueError(f"{file} is not a {kind} of xpnet: its metadata have no entry {kind!r}")
    text = metadata[kind]
    if metadata.get("sha256") != _checksum(text, arrays):
        raise ValueError(f"{file} is not a whole {kind}: its checksum differs")
    return text, arrays


def _checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        digest.update(f"\n{name} {arrays[name].dtype} {arrays[name].shape}\n".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()
