"""Data sets and samples from IDX files and arrays: what is read, and what is refused by name in one line."""

import gzip
import io
import os

import numpy as np
import pytest
from test_datasets import idx

from xpnet.datasets import DatasetError, load_dataset, load_mnist, read_image, read_samples
from xpnet.nets import TwoLayerNet

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
