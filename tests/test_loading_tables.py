"""Data sets from tables of text: what is read, and what is refused by its line."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_loading import refused

from xpnet.datasets import load_dataset, read_samples
from xpnet.layers import Affine, Normalize
from xpnet.nets import Sequential

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
