"""Writing files so that a reader finds the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["written_atomically"]


@contextlib.contextmanager
def written_atomically(file: str | Path) -> Iterator[BinaryIO]:
    """Open a binary stream whose content becomes `file` when the block ends without an error.

    Written to a temporary name beside `file`, flushed to the disk, then renamed; after an error `file` is as it was
    and the temporary file is gone.
    """
    file = Path(file)
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with open(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)  # mkstemp makes files private; give this one the rights that open() would
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
