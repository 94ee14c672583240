import gzip
import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

from xpnet.datasets import DatasetError, load_mnist, read_idx
from xpnet.datasets.mnist import FILES

SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def idx(array, type_code=0x08):
    """Encode an array as an IDX file's content."""
    array = np.asarray(array)
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, type_code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def root(tmp_path, rng):
    """A small data set in MNIST's format: 5 x 4 pixels, 3 classes, half of the files compressed."""
    for part, n in (("train", 30), ("t10k", 12)):
        images = rng.integers(0, 256, (n, 5, 4), dtype="uint8")
        labels = rng.integers(0, 3, n, dtype="uint8")
        labels[0] = 2
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), mtime=0))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


@pytest.mark.parametrize("name", SHA256)
def test_the_files_in_the_package_are_mnist(name):
    content = gzip.decompress((FILES / f"{name}.gz").read_bytes())
    assert hashlib.sha256(content).hexdigest() == SHA256[name]


def test_mnist_has_the_shapes_and_ranges_of_the_contract():
    (x_train, t_train), (x_test, t_test) = load_mnist()
    assert (x_train.shape, t_train.shape) == ((60000, 784), (60000,))
    assert (x_test.shape, t_test.shape) == ((10000, 784), (10000,))
    assert x_train.dtype == x_test.dtype == "float32"
    assert t_train.dtype == t_test.dtype == "int64"
    assert (x_train.min(), x_train.max()) == (0.0, 1.0)
    assert t_train[:5].tolist() == [5, 0, 4, 1, 9]
    x_train[0] = 0.0  # the caller's own

    (images, labels), _ = load_mnist(normalize=False, flatten=False, one_hot_label=True)
    assert images.shape == (60000, 1, 28, 28)
    assert images.dtype == "uint8"
    assert images.max() == 255
    assert labels.shape == (60000, 10)
    np.testing.assert_array_equal(labels.argmax(axis=1), t_train)
    np.testing.assert_array_equal(x_train[7], (images[7].reshape(-1) / 255.0).astype("float32"))


def test_any_data_set_of_the_format_is_read_from_a_folder(root):
    (x_train, t_train), (x_test, _) = load_mnist(root=root)
    assert x_train.shape == (30, 20)
    assert x_test.shape == (12, 20)
    assert t_train.max() == 2
    (images, labels), _ = load_mnist(False, False, True, root=str(root))
    assert images.shape == (30, 1, 5, 4)
    assert labels.shape == (30, 3)
    (root / "train-labels-idx1-ubyte").rename(root / "train-labels.idx1-ubyte")  # the other spelling in circulation
    load_mnist(root=root)


@pytest.mark.parametrize(("code", "dtype"), [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (2, 3, 4)])
def test_read_idx_reads_every_type_and_shape(tmp_path, code, dtype, shape):
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype) - np.asarray(1, dtype)
    file = tmp_path / "values"
    file.write_bytes(idx(values, code))
    read = read_idx(file)
    np.testing.assert_array_equal(read, values)
    assert read.dtype == np.dtype(dtype)
    assert read.flags.writeable


IMAGES = "train-images-idx3-ubyte"
GZIPPED = gzip.compress(idx(np.zeros((30, 5, 4), "uint8")), mtime=0)  # the same bytes in each process: they name tests


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, None, "no such file, plain or .gz"),
        (IMAGES, b"", "0 bytes are too few for an IDX header"),
        (IMAGES, idx(np.zeros(30, "uint8")), "wrong magic number 0x00000801, expected 0x00000803"),
        (IMAGES, idx(np.zeros((30, 5, 4), "float32"), 0x0D), "wrong magic number 0x00000D03, expected 0x00000803"),
        (IMAGES, b"\x89PNG\r\n\x1a\n" + bytes(100), "wrong magic number 0x89504E47"),
        (IMAGES, idx(np.zeros((30, 5, 4), "uint8"))[:10], "truncated in its header, 10 of 16 bytes"),
        (IMAGES, idx(np.zeros((30, 5, 4), "uint8"))[:-1], r"truncated, 615 bytes at most .*\(30, 5, 4\) needs 616"),
        (IMAGES, idx(np.zeros((30, 5, 4), "uint8")) + b"!", "trailing bytes, 616 and more where"),
        (IMAGES, idx(np.zeros((29, 5, 4), "uint8")), "29 images, but train-labels-idx1-ubyte has 30 labels"),
        (
            IMAGES,
            idx(np.zeros((30, 4, 4), "uint8")),
            r"training images are \(4, 4\) pixels large, test images \(5, 4\)",
        ),
        (f"{IMAGES}.gz", idx(np.zeros((30, 5, 4), "uint8")), "not a gzip file, though its name says so"),
        (f"{IMAGES}.gz", GZIPPED[:-5], "damaged gzip file: "),
        (f"{IMAGES}.gz", GZIPPED[:20] + b"damage" + GZIPPED[26:], "damaged gzip file: "),
        (f"{IMAGES}.gz", GZIPPED[:-8] + bytes(8), "damaged gzip file: "),
        (f"{IMAGES}.gz", GZIPPED + b"trailing", "damaged gzip file: "),
        (f"{IMAGES}.gz", None, "no such file"),
    ],
)
def test_damaged_files_are_refused_by_name_in_one_line(root, name, content, message):
    (root / f"{IMAGES}.gz").unlink()
    if content is not None:
        (root / name).write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        load_mnist(root=root)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


def test_empty_sets_and_folders_are_refused(root, tmp_path):
    for name, array in ((IMAGES, np.zeros((0, 5, 4), "uint8")), ("train-labels-idx1-ubyte", np.zeros(0, "uint8"))):
        (root / f"{name}.gz").write_bytes(gzip.compress(idx(array), mtime=0))
    with pytest.raises(DatasetError, match="no images"):
        load_mnist(root=root)
    with pytest.raises(DatasetError, match="no such file"):
        load_mnist(root=tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="Is a directory"):
        read_idx(tmp_path)


def test_a_header_that_promises_more_than_the_file_can_hold_is_refused_unread(tmp_path):
    """A file of a few bytes that claims terabytes; a compressed one with gigabytes of zeros behind its values."""
    giant = struct.pack(">BBBB3I", 0, 0, 0x08, 3, 2**20, 2**10, 2**10)
    for content in (giant, gzip.compress(giant, mtime=0)):
        (tmp_path / "giant").write_bytes(content)
        with pytest.raises(DatasetError, match=r"giant: truncated, .* bytes at most where"):
            read_idx(tmp_path / "giant")
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(idx(np.zeros(3, "uint8")) + bytes(100_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match="trailing bytes, 11 and more where"):
            read_idx(tmp_path / "bomb.gz")
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(1,) * 65, (0, *(2**32 - 1,) * 5)])
def test_a_shape_that_no_array_can_have_is_refused(tmp_path, shape):
    (tmp_path / "values").write_bytes(struct.pack(f">BBBB{len(shape)}I", 0, 0, 0x08, len(shape), *shape) + b"\0")
    with pytest.raises(DatasetError, match="no array can have the header's shape"):
        read_idx(tmp_path / "values")
