"""Data sets that are downloaded by name, with checksums and mirrors. pooch fetches them (``xpnet[data]``)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xpnet.datasets.idx import DatasetError
from xpnet.extras import import_extra

__all__ = ["REMOTE", "RemoteFiles", "fetch"]


@dataclass(frozen=True)
class RemoteFiles:
    """Files of a data set on the web.

    Attributes
    ----------
    mirrors : tuple of str
        Addresses before the files' names, tried in this order.
    md5 : mapping of str to str
        MD5 checksum of each file, by name.
    classes : tuple of str
        Names of the classes, by label.
    """

    mirrors: tuple[str, ...]
    md5: Mapping[str, str]
    classes: tuple[str, ...]


# The checksums are those that torchvision publishes (torchvision/datasets/mnist.py).
REMOTE = {
    "fashion-mnist": RemoteFiles(
        (
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "kmnist": RemoteFiles(
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        {
            "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
            "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
            "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
            "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
        },
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    ),
}
"""Data sets by name. The hosts are untried: no test of this library reaches them."""


def fetch(name: str, files: RemoteFiles, cache: str | Path | None = None, timeout: float = 30.0) -> Path:
    """Return the folder with the files of a data set, after downloading those that are missing or broken.

    Files that are there, with the right checksum, are kept: after a failure, another call goes on where this one ended.

    Parameters
    ----------
    name : str
        The data set's name, also that of its folder.
    files : RemoteFiles
        Its files.
    cache : str or Path, optional
        Folder for downloaded data sets; by default the user's cache folder for xpnet.
    timeout : float, default 30
        Seconds to wait for an answer of a host.

    Raises
    ------
    DatasetError
        If no mirror has one of the files. The message names the file, what went wrong at each mirror, and the folder.
    """
    pooch = import_extra("pooch", "data")
    folder = Path(pooch.os_cache("xpnet") if cache is None else cache) / name
    mirrors = list(files.mirrors)
    for file, md5 in files.md5.items():
        failures: list[str] = []
        for mirror in tuple(mirrors):
            downloader = pooch.HTTPDownloader(timeout=timeout)
            try:
                pooch.retrieve(mirror + file, f"md5:{md5}", file, folder, downloader=downloader)
            except (OSError, ValueError) as error:
                failures.append(f"{mirror}{file}: {_reason(error, timeout)}")
                continue
            mirrors.sort(key=mirror.__ne__)  # the next file comes from where this one came from
            break
        else:
            raise DatasetError(
                f"{name}: no mirror has {file}: {'; '.join(failures)}. Files fetched before are kept in {folder}: try "
                f"again, or put {file} (MD5 {md5}) there by hand"
            )
    return folder


def _reason(error: Any, timeout: float) -> str:
    """Return in a few words why a download failed."""
    web = import_extra("requests", "data")
    if isinstance(error, web.HTTPError):
        return f"HTTP status {error.response.status_code}"
    if isinstance(error, web.Timeout) or "timed out" in str(error):  # the body's time-out is a ConnectionError
        return f"no answer within {timeout:g} s"
    if isinstance(error, web.exceptions.ChunkedEncodingError):
        return "the connection ended early"
    if isinstance(error, web.ConnectionError):
        return f"no connection ({type(error).__name__})"
    return "the file has another checksum" if "does not match" in str(error) else str(error)
