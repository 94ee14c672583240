"""Data sets of IDX files under any of the names in circulation, EMNIST's among them."""

import re
from pathlib import Path

import numpy as np

from xpnet.datasets.idx import DatasetError, read_idx, read_pair

__all__ = ["find_idx_sets", "read_idx_set", "read_idx_values"]

NAME = re.compile(
    r"(?P<set>.*?)[-_.]?(?P<part>train|t10k|test)[-_.](?P<kind>images[-_.]idx3|labels[-_.]idx1)[-_.]ubyte(\.gz)?"
)


def find_idx_sets(folder: Path) -> dict[str, dict[str, Path]]:
    """Return the data sets in a folder: by the start of their names, the files by part and kind, ``"train images"``.

    Of a file that is there plain and compressed, the compressed one counts, as for `load_mnist`.
    """
    sets: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):  # .gz after the plain file
        if found := NAME.fullmatch(file.name):
            part = "train" if found["part"] == "train" else "test"
            sets.setdefault(found["set"], {})[f"{part} {found['kind'][:6]}"] = file
    return sets


def read_idx_set(source: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read the training set and, if there is one, the test set of a folder: images (N, 1, H, W) and labels, uint8.

    Parameters
    ----------
    source : Path
        A folder with one data set, or any of the files of a data set in a folder with several.
    """
    is_folder = source.is_dir()
    folder = source if is_folder else source.parent
    sets = find_idx_sets(folder)
    if is_folder and len(sets) > 1:
        examples = ", ".join(next(iter(files.values())).name for files in sets.values())
        raise DatasetError(
            f"{folder}: {len(sets)} data sets in one folder; instead of the folder, give a file of one: {examples}"
        )
    found = None if is_folder else NAME.fullmatch(source.name)
    if not (is_folder or found):
        raise DatasetError(
            f"{source}: no data set by its name; expected .npz, .csv, .tsv, or an IDX file like train-images-idx3-ubyte"
        )
    name = found["set"] if found else next(iter(sets))
    files = sets.get(name, {})
    parts = ["train"] if not any(key.startswith("test") for key in files) else ["train", "test"]
    pairs = []
    for part in parts:
        missing = [f"{part} {kind}" for kind in ("images", "labels") if f"{part} {kind}" not in files]
        if missing:
            raise DatasetError(f"{folder / (name or '*')}: no IDX file of {' and '.join(missing)}")
        images, labels = files[f"{part} images"], files[f"{part} labels"]
        x, t = read_pair(images, labels)
        pairs.append((_upright(images, x), t))
    return pairs


def read_idx_values(file: Path) -> np.ndarray:
    """Read an IDX file: images of uint8 as (N, 1, H, W), and anything else as it is."""
    values = read_idx(file)
    return _upright(file, values) if values.ndim == 3 and values.dtype == "uint8" else values


def _upright(file: Path, images: np.ndarray) -> np.ndarray:
    """Return images with a channel axis, EMNIST's transposed: it stores them column by column."""
    if file.name.lower().startswith("emnist"):
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return images[:, None]
