"""Data sets and samples from folders and files: what is read, and what is refused by name in one line."""

import gzip
import io
import os
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_datasets import idx

from xpnet.datasets import DatasetError, load_dataset, load_mnist, read_image, read_samples
from xpnet.layers import Affine, Normalize
from xpnet.nets import Sequential, TwoLayerNet

IMAGES = np.arange(12 * 4 * 5, dtype="uint8").reshape(12, 4, 5)
LABELS = np.array([3, 1, 7] * 4, "uint8")


def write_idx(folder, prefix="", test="t10k", images=IMAGES, labels=LABELS, parts=2):
    folder.mkdir(exist_ok=True)
    for part in ("train", test)[:parts]:
        (folder / f"{prefix}{part}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels), mtime=0))
    return folder


def refused(source, message, load=load_dataset, **arguments):
    with pytest.raises(DatasetError, match=message) as caught:
        load(source, **arguments)
    assert "\n" not in str(caught.value)
    assert str(source) in str(caught.value)


class TestNames:
    def test_mnist_is_in_the_package(self):
        data, ((x, t), (x_test, _)) = load_dataset("mnist"), load_mnist(normalize=False, flatten=False)
        np.testing.assert_array_equal(data.x_train, x)
        np.testing.assert_array_equal(data.t_train, t)
        np.testing.assert_array_equal(data.x_test, x_test)
        assert data.t_train.dtype == "int64"
        assert data.classes == tuple("0123456789")

    def test_what_is_there_by_no_name_is_refused(self, tmp_path):
        refused("cifar-1", r"no such file or folder, and no data set of that name \(mnist, fashion-mnist, kmnist\)")
        refused(tmp_path / "nothing.csv", "no such file or folder")
        with pytest.raises(TypeError, match="source must be a name or a path, got int"):
            load_dataset(3)
        for read in (read_samples, read_image):
            with pytest.raises(TypeError, match="file must be a path, got int"):
                read(3)


class TestIdxFolders:
    @pytest.mark.parametrize("prefix", ["", "digits-", "my.set_"])
    @pytest.mark.parametrize("test", ["t10k", "test"])
    def test_any_prefix_will_do(self, tmp_path, prefix, test):
        data = load_dataset(write_idx(tmp_path / "set", prefix, test))
        for x, t in ((data.x_train, data.t_train), (data.x_test, data.t_test)):
            np.testing.assert_array_equal(x, IMAGES[:, None])
            np.testing.assert_array_equal(np.array(data.classes)[t], LABELS.astype(str))
        assert data.classes == ("1", "3", "7")

    def test_emnist_is_turned_upright_and_its_letters_begin_at_0(self, tmp_path):
        folder = write_idx(tmp_path / "set", "emnist-letters-", "test", labels=np.arange(1, 13, dtype="uint8"))
        data = load_dataset(folder)
        np.testing.assert_array_equal(data.x_train[:, 0], IMAGES.transpose(0, 2, 1))
        np.testing.assert_array_equal(data.t_train, np.arange(12))
        assert data.classes == tuple(map(str, range(1, 13)))
        np.testing.assert_array_equal(read_samples(folder / "emnist-letters-test-images-idx3-ubyte"), data.x_test)

    def test_a_training_set_alone_will_do(self, tmp_path):
        data = load_dataset(write_idx(tmp_path / "set", parts=1))
        assert data.x_test is None
        assert data.t_test is None

    def test_of_several_sets_a_file_chooses_one(self, tmp_path):
        write_idx(tmp_path, "emnist-letters-")
        write_idx(tmp_path, "emnist-digits-", labels=LABELS + 1)
        refused(tmp_path, "2 data sets in one folder; .* emnist-digits-t10k-.*, emnist-letters-t10k-")
        data = load_dataset(tmp_path / "emnist-digits-train-images-idx3-ubyte")
        assert data.classes == ("2", "4", "8")

    def test_labels_are_looked_up_in_given_classes(self, tmp_path):
        write_idx(tmp_path)
        data = load_dataset(tmp_path, classes=["0", "7", "3", "1"])
        np.testing.assert_array_equal(data.t_train, [2, 3, 1] * 4)
        assert data.classes == ("0", "7", "3", "1")
        refused(tmp_path, "the label '3' is none of the 2 classes 1, 7", classes=["1", "7"])

    def test_what_does_not_fit_is_refused(self, tmp_path):
        write_idx(tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
        refused(tmp_path, "no IDX file of test labels")
        write_idx(tmp_path)
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(IMAGES.transpose(0, 2, 1)))
        refused(tmp_path, r"training samples have the shape \(1, 4, 5\), those of the test set \(1, 5, 4\)")
        (tmp_path / "notes.txt").write_text("no data")
        refused(tmp_path / "notes.txt", "no data set by its name; expected .npz")


class Hostile:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class TestArrays:
    @pytest.mark.parametrize("names", [("x", "t"), ("x", "y"), ("x_train", "t_train"), ("x_train", "y_train")])
    def test_npz_files_are_read(self, tmp_path, rng, names):
        x, t = rng.random((6, 3), dtype="float32"), np.array([5, 2, 5, 9, 2, 9])
        arrays = dict(zip(names, (x, t), strict=True))
        if names[0] != "x":
            arrays |= {name.replace("train", "test"): array[:2] for name, array in arrays.items()}
        np.savez_compressed(tmp_path / "data.npz", **arrays)
        data = load_dataset(tmp_path / "data.npz")
        np.testing.assert_array_equal(data.x_train, x)
        np.testing.assert_array_equal(data.t_train, [1, 0, 1, 2, 0, 2])
        assert data.classes == ("2", "5", "9")
        assert (data.x_test is None) == (names[0] == "x")

    def test_names_are_classes_and_floats_are_targets(self, tmp_path, rng):
        x = rng.random((3, 2))
        np.savez(tmp_path / "names.npz", x=x, t=np.array([["cat"], ["ant"], ["cat"]]))
        data = load_dataset(tmp_path / "names.npz")
        np.testing.assert_array_equal(data.t_train, [1, 0, 1])
        assert data.classes == ("ant", "cat")
        np.savez(tmp_path / "regression.npz", x=x, t=x[:, 0])
        data = load_dataset(tmp_path / "regression.npz")
        np.testing.assert_array_equal(data.t_train, x[:, 0])
        assert data.classes is None
        refused(tmp_path / "regression.npz", "labels are no classes, but float64", classes=["a"])

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": np.ones((3, 2))}, "expected the arrays x and t, or x_train and t_train, .*, got x"),
            ({"x": np.ones((3, 2)), "t": np.arange(2)}, r"as many labels as samples, got \(2,\) and \(3, 2\)"),
            ({"x": np.ones((0, 2)), "t": np.arange(0)}, r"as many labels as samples, got \(0,\) and \(0, 2\)"),
            ({"x": np.array(["a", "b"]), "t": np.arange(2)}, "expected samples of real numbers, got <U1"),
            ({"x": np.ones((2, 2)), "t": np.array([{}, {}])}, "not a complete .npz file: "),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, tmp_path, arrays, message):
        np.savez(tmp_path / "data.npz", **arrays)
        refused(tmp_path / "data.npz", message)

    def test_damaged_files_are_refused(self, tmp_path):
        buffer = io.BytesIO()
        np.savez(buffer, x=np.ones((30, 2)), t=np.arange(30))
        for content in (b"", b"text", buffer.getvalue()[:-30], buffer.getvalue()[:200]):
            (tmp_path / "data.npz").write_bytes(content)
            refused(tmp_path / "data.npz", r"data\.npz is not a complete \.npz file: ")
        np.save(tmp_path / "x.npy", np.ones((5, 3)))
        content = (tmp_path / "x.npy").read_bytes()
        for damaged in (b"", b"text", content[:20], content[:-1]):
            (tmp_path / "x.npy").write_bytes(damaged)
            refused(tmp_path / "x.npy", "a damaged .npy file", read_samples)
        np.save(tmp_path / "x.npy", np.array(["a"]))
        refused(tmp_path / "x.npy", r"expected samples of numbers, \(N, ...\), got <U1", read_samples)
        refused(tmp_path / "none.npy", "No such file", read_samples)

    def test_pickled_objects_are_refused_and_do_not_run(self, tmp_path):
        hostile = np.empty(2, object)
        hostile[:] = Hostile(tmp_path / "was here")
        np.savez(tmp_path / "data.npz", x=np.ones((2, 2)), t=hostile)
        refused(tmp_path / "data.npz", r"is not a complete \.npz file: .*its header object")
        np.save(tmp_path / "x.npy", hostile)
        refused(tmp_path / "x.npy", "a damaged .npy file: Object arrays cannot be loaded", read_samples)
        np.savez(tmp_path / "params.npz", W1=hostile)
        with pytest.raises(ValueError, match=r"is not a complete \.npz file: "):
            TwoLayerNet(2, 2, 2, seed=0).load_params(tmp_path / "params.npz")
        assert not (tmp_path / "was here").exists()

    def test_samples_of_npy_and_idx_files_are_read(self, tmp_path):
        np.save(tmp_path / "x.npy", IMAGES)
        np.testing.assert_array_equal(read_samples(tmp_path / "x.npy"), IMAGES)
        (tmp_path / "images.gz").write_bytes(gzip.compress(idx(IMAGES)))
        np.testing.assert_array_equal(read_samples(str(tmp_path / "images.gz")), IMAGES[:, None])
        (tmp_path / "values").write_bytes(idx(np.ones((3, 2), "float32"), 0x0D))
        np.testing.assert_array_equal(read_samples(tmp_path / "values"), np.ones((3, 2)))


IRIS = "length,width,species\n5.1,3.5,setosa\n6.2,2.9,virginica\n4.9,3.0,setosa\n"


class TestTables:
    @pytest.mark.parametrize(
        ("text", "label"),
        [
            (IRIS, "species"),
            (IRIS, -1),
            (IRIS.replace("species", "Class"), None),
            (IRIS.partition("\n")[2], 2),
            (IRIS.replace(",", ";"), "species"),
            (IRIS.replace(",", "\t"), -1),
            (IRIS.replace("\n", "\r\n"), "species"),
            ("\ufeff" + IRIS.replace("\n", "\n\n"), "species"),
            (IRIS.replace("setosa", '"setosa"').rstrip(), "species"),
        ],
    )
    def test_numbers_and_a_column_of_labels_are_read(self, tmp_path, text, label):
        (tmp_path / "iris.csv").write_bytes(text.encode())
        data = load_dataset(tmp_path / "iris.csv", label=label)
        np.testing.assert_array_equal(data.x_train, np.array([[5.1, 3.5], [6.2, 2.9], [4.9, 3.0]], "float32"))
        assert data.x_train.dtype == "float32"
        np.testing.assert_array_equal(data.t_train, [0, 1, 0])
        assert data.classes == ("setosa", "virginica")
        assert data.x_test is None

    def test_integer_labels_are_sorted_as_numbers(self, tmp_path):
        (tmp_path / "digits.csv").write_text("label,0,1\n10,1,2\n9,3,4\n10.0,5,6\n")
        for label in (None, "label", 0):  # the other names in the header are numbers
            data = load_dataset(tmp_path / "digits.csv", label=label)
            np.testing.assert_array_equal(data.t_train, [1, 0, 1])
            assert data.classes == ("9", "10")

    @pytest.mark.parametrize(
        ("text", "label", "message"),
        [
            ("", None, "no lines"),
            ("\n\n", None, "no lines"),
            ("a,label\n", None, "no lines behind the header"),
            ("label\n1\n", None, "no column besides the labels"),
            (
                IRIS,
                None,
                "names a column of labels .* nowhere: length, width, species; pass label=, its name or its num",
            ),
            (IRIS, "kind", "names a column 'kind' nowhere"),
            (IRIS, 3, "no column 3, the first line has 3 values"),
            ("y,y,x\n1,2,3\n", None, "more than once"),
            (IRIS.replace("6.2", ""), "species", r"line 3, column 0 \(length\): a missing value"),
            (IRIS.replace("2.9", "NA"), "species", r"line 3, column 1 \(width\): a missing value"),
            (IRIS.replace("2.9", "nan"), "species", r"line 3, column 1 \(width\): a missing value"),
            (IRIS.replace("2.9", "1e99"), "species", r"line 3, column 1 \(width\): 'inf' is no finite number"),
            (IRIS.replace("2.9", "two"), "species", r"line 3, column 1 \(width\): 'two' is no finite number"),
            (IRIS.replace("virginica", ""), "species", r"line 3, column 2 \(species\): a missing value"),
            (IRIS.replace("2.9,", ""), "species", "line 3: 2 values, where the first line has 3"),
            (IRIS.replace("2.9,", "2.9,1,"), "species", "line 3: 4 values, where the first line has 3"),
            (IRIS.replace("setosa", "1").replace("virginica", "1.5"), "species", "line 3: the label 1.5 is no class"),
            ("5.l,3.5,setosa\n6.2,2.9,virginica\n", -1, "line 1, column 0: '5.l' is no finite number"),
            (IRIS + '"unclosed', "species", "line 5: unexpected end of data"),
            (IRIS.encode() + b"\xff,1,2", "species", "no text in UTF-8: invalid start byte at byte 6"),
            (b"\x89PNG\r\n\x1a\n\0\0", None, "no text in UTF-8"),
        ],
    )
    def test_what_is_no_such_table_is_refused_by_its_line(self, tmp_path, text, label, message):
        (tmp_path / "data.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(tmp_path / "data.csv", message, label=label)

    def test_samples_are_lines_of_numbers(self, tmp_path):
        for header in ("", "a,b\n"):
            (tmp_path / "x.csv").write_text(f"{header}1,2\n3,4\n")
            np.testing.assert_array_equal(read_samples(tmp_path / "x.csv"), [[1, 2], [3, 4]])
        (tmp_path / "x.csv").write_text("1,2\n3,cat\n")
        refused(tmp_path / "x.csv", "line 2, column 1: 'cat' is no finite number", read_samples)

    @given(st.data())
    def test_any_numbers_come_back(self, tmp_path_factory, data):
        file = tmp_path_factory.mktemp("tables", numbered=True) / "x.csv"
        n, D = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
        number = st.floats(width=32, allow_nan=False, allow_infinity=False)
        rows = data.draw(st.lists(st.lists(number, min_size=D, max_size=D), min_size=n, max_size=n))
        column = data.draw(st.integers(0, D))
        labels = data.draw(st.lists(st.integers(-(10**6), 10**6), min_size=n, max_size=n))
        lines = [
            [*map(repr, row[:column]), str(t), *map(repr, row[column:])] for row, t in zip(rows, labels, strict=True)
        ]
        file.write_text("\n".join(map(",".join, lines)))
        read = load_dataset(file, label=column)
        np.testing.assert_array_equal(read.x_train, np.array(rows, "float32"))
        assert [int(read.classes[t]) for t in read.t_train] == labels

    def test_memory_is_that_of_the_numbers(self, tmp_path):
        (tmp_path / "x.csv").write_text("1.5,2,3,4,5,6,7,8\n" * 50_000)
        tracemalloc.start()
        try:
            assert read_samples(tmp_path / "x.csv").nbytes == 1_600_000
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()

    def test_a_network_takes_a_table_with_its_scale_in_front(self, tmp_path):
        (tmp_path / "iris.csv").write_text(IRIS)
        data = load_dataset(tmp_path / "iris.csv", label="species")
        net = Sequential([Normalize.from_data(data.x_train), Affine.from_sizes(2, len(data.classes), rng=0)])
        assert net.predict(data.x_train).shape == (3, 2)


def grey(h=6, w=5, value=40):
    return np.full((h, w), value, "uint8")


@pytest.fixture
def pil():
    return pytest.importorskip("PIL.Image", reason="Pillow is not installed")


class TestPictures:
    @pytest.fixture(autouse=True)
    def pillow(self, pil):
        self.pil = pil

    def save(self, file, array, mode=None, **settings):
        file.parent.mkdir(parents=True, exist_ok=True)
        image = self.pil.fromarray(array)
        (image if mode is None else image.convert(mode)).save(file, **settings)
        return file

    def test_pixels_come_back(self, tmp_path, rng):
        for shape in ((6, 5), (6, 5, 3)):
            pixels = rng.integers(0, 256, shape, dtype="uint8")
            file = self.save(tmp_path / "x.png", pixels)
            np.testing.assert_array_equal(read_image(file), pixels.reshape(6, 5, -1).transpose(2, 0, 1))
            np.testing.assert_array_equal(read_samples(file)[0], read_image(file))
            assert read_image(file, channels=1).shape == (1, 6, 5)
            assert read_image(file, (3, 4), 3).shape == (3, 3, 4)
            np.testing.assert_array_equal(read_image(file, invert=True), 255 - read_image(file))

    @pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK"])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_any_mode_becomes_grey_or_rgb(self, tmp_path, mode, channels):
        file = self.save(tmp_path / "x.tif", grey(value=255), mode)
        np.testing.assert_array_equal(read_image(file, channels=channels), np.full((channels, 6, 5), 255))

    def test_16_bits_become_8(self, tmp_path):
        file = self.save(tmp_path / "x.png", np.array([[0, 257, 65535, 30000]], "uint16"))
        np.testing.assert_array_equal(read_image(file), [[[0, 1, 255, 116]]])
        for dtype, value in (("float32", 1.5), ("int32", 70000)):
            refused(self.save(tmp_path / "x.tif", np.full((2, 2), value, dtype)), "more than 16 bits", read_image)

    def test_what_is_transparent_is_white(self, tmp_path):
        pixels = np.zeros((2, 2, 4), "uint8")
        pixels[0, 0, 3] = 255
        file = self.save(tmp_path / "x.png", pixels)
        np.testing.assert_array_equal(read_image(file, channels=1), [[[0, 255], [255, 255]]])

    def test_a_picture_is_turned_as_its_camera_says(self, tmp_path):
        pixels = np.array([[10, 20, 30], [40, 50, 60]], "uint8")
        exif = self.pil.Exif()
        exif[0x0112] = 6  # turned by 90 degrees clockwise to be seen
        file = self.save(tmp_path / "x.png", pixels, exif=exif)
        np.testing.assert_array_equal(read_image(file)[0], np.rot90(pixels, -1))

    def test_a_light_border_is_inverted(self, tmp_path):
        paper, board = grey(value=250), grey(value=5)
        paper[2, 2], board[2, 2] = 0, 255
        for pixels, expected in ((paper, 255 - paper), (board, board)):
            file = self.save(tmp_path / "x.png", pixels)
            np.testing.assert_array_equal(read_image(file, invert="auto")[0], expected)

    @pytest.mark.parametrize("shape", [(60, 60), (40, 90), (200, 30), (28, 28)])
    def test_a_digit_is_laid_out_as_in_mnist(self, tmp_path, rng, shape):
        pixels = np.full(shape, 255, "uint8")
        pixels[3:-9, 2:9] = 0  # a one, in a corner of the paper
        file = self.save(tmp_path / "x.png", pixels)
        (digit,) = read_image(file, (28, 28), 1, invert="auto", centre_digit=True)
        rows, columns = (np.flatnonzero(digit.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        mass = digit.astype(float) / digit.sum(dtype=float)
        for axis in (0, 1):
            assert abs(mass.sum(axis=1 - axis) @ np.arange(28) - 14) < 0.501

    def test_mnist_itself_hardly_moves(self, tmp_path):
        for image in load_dataset("mnist").x_test[:50, 0]:
            file = self.save(tmp_path / "x.png", image)
            digit = read_image(file, (28, 28), 1, invert="auto", centre_digit=True)[0] / 255.0
            assert (digit * image).sum() > 0.75 * np.linalg.norm(digit) * np.linalg.norm(image)

    def test_an_empty_sheet_stays_black(self, tmp_path):
        file = self.save(tmp_path / "x.png", grey(value=255))
        assert not read_image(file, (28, 28), 1, invert="auto", centre_digit=True).any()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "an empty file"),
            (b"no picture at all", "no picture in a format that Pillow reads"),
            (b"\x89PNG\r\n\x1a\n", "x.png: "),
        ],
    )
    def test_what_is_no_picture_is_refused(self, tmp_path, content, message):
        (tmp_path / "x.png").write_bytes(content)
        refused(tmp_path / "x.png", message, read_image)

    @pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tif"])
    def test_a_picture_cut_or_damaged_anywhere_is_read_or_refused_by_name(self, tmp_path, rng, suffix):
        file = self.save(tmp_path / f"x.{suffix}", rng.integers(0, 256, (9, 9), dtype="uint8"))
        content = file.read_bytes()
        cuts = [content[:n] for n in range(0, len(content), max(1, len(content) // 40))]
        flips = [content[:n] + bytes([content[n] ^ 0xFF]) + content[n + 1 :] for n in rng.integers(0, len(content), 40)]
        for damaged in cuts + flips:
            file.write_bytes(damaged)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's own, of metadata
                try:
                    read_image(file)
                except DatasetError as error:
                    assert str(file) in str(error)  # noqa: PT017 (most of them are readable)
        file.write_bytes(content[: len(content) // 2])
        if suffix in ("png", "jpg"):
            refused(file, f"x.{suffix}: ", read_image)

    def test_several_frames_are_refused(self, tmp_path):
        frames = [self.pil.fromarray(grey(value=v)) for v in (0, 90, 200)]
        frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
        refused(tmp_path / "x.gif", "3 pictures in one file", read_image)

    def test_wrong_settings_are_refused(self, tmp_path):
        file = self.save(tmp_path / "x.png", grey())
        for settings, message in (
            ({"size": (0, 3)}, "size must be"),
            ({"size": 28}, "size"),
            ({"channels": 2}, "channels must be 1"),
            ({"invert": "yes"}, "invert must be True, False or 'auto'"),
            ({"centre_digit": True}, "centre_digit needs size"),
        ):
            with pytest.raises((ValueError, TypeError), match=message):
                read_image(file, **settings)
        refused(tmp_path / "none.png", "No such file", read_image)

    def test_a_folder_per_class(self, tmp_path):
        for name, value in (("cat", 10), ("ant", 20)):
            for n in range(2):
                self.save(tmp_path / name / f"{n}.png", grey(value=value + n))
        (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
        (tmp_path / "cat" / "notes.txt").write_text("no picture")
        data = load_dataset(tmp_path)
        assert data.classes == ("ant", "cat")
        np.testing.assert_array_equal(data.t_train, [0, 0, 1, 1])
        np.testing.assert_array_equal(data.x_train[:, 0, 0, 0], [20, 21, 10, 11])
        assert data.x_train.shape == (4, 1, 6, 5)
        assert data.x_train.dtype == "uint8"
        assert data.x_test is None

    @pytest.mark.parametrize("test", ["test", "val"])
    def test_folders_of_training_and_test(self, tmp_path, test):
        for part, name, value in (("train", "a", 1), ("train", "b", 2), (test, "b", 3)):
            self.save(tmp_path / part / name / "x.png", grey(value=value))
        data = load_dataset(tmp_path)
        np.testing.assert_array_equal(data.t_train, [0, 1])
        np.testing.assert_array_equal(data.t_test, [1])
        assert data.x_test[0, 0, 0, 0] == 3

    def test_a_class_may_be_called_train(self, tmp_path):
        for name in ("boat", "train"):
            self.save(tmp_path / name / "x.png", grey())
        assert load_dataset(tmp_path).classes == ("boat", "train")

    def test_pictures_that_differ_need_a_size_or_channels(self, tmp_path):
        self.save(tmp_path / "a" / "x.png", grey(6, 5))
        self.save(tmp_path / "b" / "y.png", grey(8, 5))
        refused(tmp_path, r"y.png: 8 x 5 pixels, where .*x.png has 6 x 5; pass size=\(height, width\)")
        assert load_dataset(tmp_path, size=(4, 4)).x_train.shape == (2, 1, 4, 4)
        self.save(tmp_path / "b" / "y.png", np.zeros((6, 5, 3), "uint8"))
        refused(tmp_path, "y.png: 3 channels, where .*x.png has 1; pass channels=1 or 3")
        assert load_dataset(tmp_path, channels=3).x_train.shape == (2, 3, 6, 5)

    def test_folders_without_pictures_are_refused(self, tmp_path):
        refused(tmp_path, "no data set in it; expected IDX files .* or pictures in one subfolder per class")
        (tmp_path / "cat").mkdir()
        refused(tmp_path, "cat: no pictures in the folder of a class")
        refused(self.save(tmp_path / "x.png", grey()), "a picture is no data set")
