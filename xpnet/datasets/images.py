"""Pictures as samples, from files and from folders of classes. Pillow reads them (``xpnet[images]``)."""

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from xpnet import settings
from xpnet.datasets.idx import DatasetError
from xpnet.extras import import_extra
from xpnet.files import written_atomically

__all__ = [
    "IMAGE_SUFFIXES",
    "centered_digit",
    "has_light_border",
    "read_image",
    "read_image_folder",
    "write_images",
]

IMAGE_SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"))

GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of gray pictures."""

INK = 0.2
"""Pixels above this share of the brightest belong to a digit, not to noise of the paper."""

BOX = 20 / 28
"""Longer side of the digit's box in MNIST, as a share of the picture's."""


def read_image(
    file: str | Path,
    size: Sequence[int] | None = None,
    channels: int | None = None,
    *,
    invert: bool | Literal["auto"] = False,
    center_digit: bool = False,
) -> np.ndarray:
    """Read a picture as uint8 pixels (C, H, W), turned as its EXIF data say and without transparency, on white.

    Parameters
    ----------
    file : str or Path
        PNG, JPEG, or another format that Pillow reads.
    size : (H, W), optional
        Size to which the picture is resized; its proportions are not kept. By default its own.
    channels : 1 or 3, optional
        Gray or RGB. By default as the file is stored.
    invert : bool or "auto", default False
        Whether dark becomes light. ``"auto"`` inverts pictures with a light border: MNIST is white on black.
    center_digit : bool, default False
        Whether to crop a light digit on dark ground and lay it out as MNIST's: it fits a box of 20 of 28 pixels, with
        its proportions, and its center of mass is in the middle. Needs `size` and ``channels=1``. Of no use for other
        pictures.

    Raises
    ------
    DatasetError
        If the file is missing, empty, truncated, animated or no picture. The message names it.
    """
    if not isinstance(file, (str, os.PathLike)):
        raise TypeError(f"file must be a path, got {type(file).__name__}")
    pil = import_extra("PIL.Image", "images")
    ops = import_extra("PIL.ImageOps", "images")
    if size is not None:
        size = settings.sizes("size", size)
        if len(size) != 2 or 0 in size:
            raise ValueError(f"size must be (height, width), both positive, got {size}")
    if channels not in (None, 1, 3):
        raise ValueError(f"channels must be 1 (gray) or 3 (RGB), got {channels!r}")
    if invert not in (True, False, "auto"):
        raise ValueError(f"invert must be True, False or 'auto', got {invert!r}")
    if center_digit and (size is None or channels != 1):
        raise ValueError("center_digit needs size=(height, width) and channels=1")
    with _damage_named(file, pil), pil.open(file) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a JPEG with the picture in further sizes
            raise DatasetError(f"{file}: {frames} pictures in one file; expected a single one")
        image.load()
        image = _as_8_bit(file, pil, ops.exif_transpose(image), channels)
    if invert is True or (invert == "auto" and has_light_border(np.asarray(image))):
        image = ops.invert(image)
    if center_digit and size is not None:
        return centered_digit(np.asarray(image), size)[None]
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), pil.Resampling.BILINEAR)
    pixels = np.array(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def centered_digit(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return a light digit on dark ground, uint8 (H, W), laid out as MNIST's in a picture of `size`.

    MNIST's digits fit a box of 20 x 20 pixels, with their proportions. Their center of mass is the center of the
    28 x 28 pixels (http://yann.lecun.com/exdb/mnist/): in the files, the pixel (14, 14). A picture without light
    pixels stays black.
    """
    pil = import_extra("PIL.Image", "images")
    canvas = np.zeros(tuple(size), "uint8")
    ink = pixels > INK * pixels.max(initial=0)
    if not ink.any():
        return canvas
    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    digit = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = min(BOX * side / length for side, length in zip(size, digit.shape, strict=True))
    h, w = (max(1, round(scale * length)) for length in digit.shape)
    digit = np.asarray(pil.fromarray(digit).resize((w, h), pil.Resampling.BILINEAR))
    mass = digit.sum(dtype="float64") or 1.0
    corner = []
    for axis, (side, length) in enumerate(zip(size, digit.shape, strict=True)):
        center = (digit.sum(axis=1 - axis, dtype="float64") @ np.arange(length)) / mass
        place = round(side / 2 - center)
        corner.append(min(max(place, 0), side - length))  # inside, however one-sided its mass
    canvas[corner[0] : corner[0] + h, corner[1] : corner[1] + w] = digit
    return canvas


def has_light_border(pixels: np.ndarray) -> bool:
    """Return whether the border of a picture, or of most of several, is light: uint8 (..., H, W) or (H, W, 3)."""
    if pixels.ndim == 3 and pixels.shape[-1] == 3:
        pixels = pixels.transpose(2, 0, 1)
    sides = (pixels[..., 0, :], pixels[..., -1, :], pixels[..., :, 0], pixels[..., :, -1])
    return float(np.median(np.concatenate([side.reshape(-1) for side in sides]))) > 127.5


def write_images(file: str | Path, x: np.ndarray, columns: int = 16, height: int = 140) -> None:
    """Write pictures side by side into one PNG file, enlarged to their pixels.

    Parameters
    ----------
    file : str or Path
        The file.
    x : (N, C, H, W), uint8 or floats in [0, 1]
        Gray or RGB pictures.
    columns : int, default 16
        Largest number of pictures in a row.
    height : int, default 140
        Height of a small picture in the file, rounded down to a multiple of its own.
    """
    pil = import_extra("PIL.Image", "images")
    pixels = x if x.dtype == "uint8" else (np.clip(x, 0.0, 1.0) * 255).astype("uint8")
    n, channels, h, w = pixels.shape
    wide = min(n, columns)
    rows = -(-n // wide)
    sheet = np.full((rows * wide, channels, h + 1, w + 1), 128, "uint8")  # a line between pictures
    sheet[:n, :, :h, :w] = pixels
    sheet = sheet.reshape(rows, wide, channels, h + 1, w + 1).transpose(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * (h + 1), wide * (w + 1), channels)[:-1, :-1]
    scale = max(height // h, 1)
    sheet = sheet.repeat(scale, axis=0).repeat(scale, axis=1)
    with written_atomically(file) as stream:
        pil.fromarray(sheet[..., 0] if channels == 1 else sheet).save(stream, format="PNG")


def read_image_folder(
    folder: Path, size: Sequence[int] | None = None, channels: int | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read a folder of pictures with one subfolder per class: images (N, C, H, W) and names of classes, of each part.

    The folder may have the parts ``train`` and ``test``, or else ``val``, each with the subfolders.

    Parameters
    ----------
    folder : Path
        The folder. Files whose suffix is none of a picture's are left out, as are hidden ones.
    size, channels
        As in `read_image`. Needed if the pictures differ in them.
    """
    parts = {path.name: path for path in _subfolders(folder)}
    if "train" in parts and parts.keys() <= {"train", "test", "val"}:
        test = parts.get("test", parts.get("val"))
        return [_read_classes(part, size, channels) for part in (parts["train"], test) if part is not None]
    return [_read_classes(folder, size, channels)]


def _read_classes(folder: Path, size: Sequence[int] | None, channels: int | None) -> tuple[np.ndarray, np.ndarray]:
    files: list[Path] = []
    labels: list[str] = []
    for subfolder in _subfolders(folder):
        found = sorted(path for path in subfolder.rglob("*") if _is_picture(path))
        if not found:
            raise DatasetError(f"{subfolder}: no pictures in the folder of a class")
        files += found
        labels += [subfolder.name] * len(found)
    if not files:
        raise DatasetError(
            f"{folder}: no data set in it; expected IDX files (train-images-idx3-ubyte ...), or pictures in one "
            "subfolder per class"
        )
    first = read_image(files[0], size, channels)
    x = np.empty((len(files), *first.shape), "uint8")
    for n, file in enumerate(files):
        image = read_image(file, size, channels) if n else first
        if len(image) != len(first):
            raise DatasetError(
                f"{file}: {len(image)} channels, where {files[0]} has {len(first)}; pass channels=1 or 3"
            )
        if image.shape != first.shape:
            raise DatasetError(
                f"{file}: {image.shape[1]} x {image.shape[2]} pixels, where {files[0]} has {first.shape[1]} x "
                f"{first.shape[2]}; pass size=(height, width) to resize them all"
            )
        x[n] = image
    return x, np.array(labels)


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _as_8_bit(file: str | Path, pil: ModuleType, image: Any, channels: int | None) -> Any:
    """Return a picture of 8 bits a channel, gray or RGB, on white where it is transparent."""
    is_gray = image.mode in GRAY if channels is None else channels == 1
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise DatasetError(f"{file}: pixels of more than 16 bits; convert the picture to 8 or 16 bits a channel")
        image = pil.fromarray((values // 257).astype("uint8"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pil.alpha_composite(pil.new("RGBA", image.size, "white"), image)
    return image.convert("L" if is_gray else "RGB")


@contextlib.contextmanager
def _damage_named(file: str | Path, pil: ModuleType) -> Iterator[None]:
    """Context in which what Pillow raises for missing and damaged files becomes a DatasetError that names the file."""
    try:
        with warnings.catch_warnings():
            # A picture of that many pixels is refused, as one of twice as many is.
            warnings.simplefilter("error", pil.DecompressionBombWarning)
            yield
    except DatasetError:
        raise
    except pil.UnidentifiedImageError as error:
        empty = Path(file).stat().st_size == 0
        raise DatasetError(
            f"{file}: {'an empty file' if empty else 'no picture in a format that Pillow reads'}"
        ) from error
    except (pil.DecompressionBombError, pil.DecompressionBombWarning) as error:
        raise DatasetError(f"{file}: too many pixels: {error}") from error
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror or error}") from error
    except (ValueError, SyntaxError, EOFError, IndexError, KeyError, TypeError, OverflowError, RuntimeError) as error:
        raise DatasetError(f"{file}: a damaged picture: {error}") from error
