"""Whatever is in a file, a reader returns what it says or raises the error that it documents, in little memory.

`pytest tests/test_readers.py --hypothesis-profile thorough` tries ten thousand files for each reader.
"""

import gzip
import io
import json
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from benchmark_results import ON_CPU
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report import Unreadable, read, render_markdown
from test_datasets import idx

from xpnet.datasets import DatasetError, read_idx
from xpnet.nets import TwoLayerNet

LARGEST = 4_000_000
"""Bytes that a reader may allocate for the files here, which have a few thousand."""

NET = TwoLayerNet(4, 3, 2, seed=0)
PARAMETERS = NET.params.asnumpy()
ANY_FILE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@st.composite
def damaged(draw, whole):
    """A valid file with bytes replaced, inserted, removed or repeated in a few places."""
    content = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(content)))
        length = draw(st.integers(0, 8) | st.integers(0, len(content)))
        content[start : start + length] = draw(
            st.binary(max_size=8) | st.just(bytes(content[start : start + length] * 2))
        )
    return bytes(content)


def peak(call):
    """Return the largest memory that a call had allocated."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


sizes = st.integers(0, 5) | st.sampled_from([2**16, 2**31 - 1, 2**31, 2**32 - 1])
values = st.binary(max_size=200) | st.integers(0, 2_000_000).map(bytes)


@st.composite
def idx_files(draw):
    """A header of any type and shape, and values of any number; plain or compressed, once or twice."""
    shape = draw(st.lists(sizes, max_size=5) | st.lists(st.integers(0, 1), max_size=255))
    code = draw(st.sampled_from([8, 9, 11, 12, 13, 14]) | st.integers(0, 255))
    content = struct.pack(f">BBBB{len(shape)}I", 0, 0, code, len(shape), *shape) + draw(values)
    for _ in range(draw(st.integers(0, 2))):
        content = gzip.compress(content, 1, mtime=0)
    return content


whole_idx = st.sampled_from(
    [idx(np.arange(6.0).reshape(2, 3), 14), gzip.compress(idx(np.zeros((3, 4), "uint8")), mtime=0)]
)


@ANY_FILE
@given(content=st.binary(max_size=40) | damaged(whole_idx) | idx_files() | damaged(idx_files()), gz=st.booleans())
def test_read_idx(tmp_path, content, gz):
    file = tmp_path / ("values.gz" if gz else "values")
    file.write_bytes(content)

    def call():
        try:
            found = read_idx(file)
        except DatasetError as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017
        else:
            assert found.dtype.isnative

    assert peak(call) < LARGEST


headers = st.builds(
    lambda descr, order, shape: repr({"descr": descr, "fortran_order": order, "shape": shape}),
    st.sampled_from(["<f4", ">f8", "<i8", "|b1", "<c8", "|O", "|S4", "<U3", "<M8[D]", [("a", "<f4")], "nonsense", 7]),
    st.sampled_from([False, True, 3]),
    st.lists(sizes | st.integers(-2, 2) | st.just(10**30), max_size=3).map(tuple) | st.sampled_from([(4, 3), (3,), 5]),
) | st.text(max_size=40)


@st.composite
def npz_files(draw):
    """An archive of the network's names, or others, with headers and values of any kind."""
    file = io.BytesIO()
    methods = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
    with zipfile.ZipFile(file, "w") as archive:
        for name in dict.fromkeys([*PARAMETERS, draw(st.sampled_from(["b1", "b3", "../x"]))]):
            content = io.BytesIO()
            np.save(content, PARAMETERS.get(name, np.zeros(2)))
            if draw(st.booleans()):
                text = draw(headers).encode("utf-8", "replace")
                magic = b"\x93NUMPY" + bytes([draw(st.integers(0, 4)), draw(st.integers(0, 1))])
                content = io.BytesIO(magic + struct.pack("<H", len(text)) + text + draw(values))
            suffix = draw(st.sampled_from([".npy", ".npy", ".npy", ""]))
            archive.writestr(f"{name}{suffix}", content.getvalue(), draw(st.sampled_from(methods)))
    return file.getvalue()


def whole_npz(save):
    file = io.BytesIO()
    save(file, **PARAMETERS)
    return file.getvalue()


whole_archives = st.sampled_from([whole_npz(np.savez), whole_npz(np.savez_compressed)])


@ANY_FILE
@given(content=st.binary(max_size=40) | damaged(whole_archives) | npz_files() | damaged(npz_files()))
def test_load_params(tmp_path, content):
    file = tmp_path / "params.npz"
    file.write_bytes(content)
    NET.params.update(PARAMETERS)

    def call():
        try:
            NET.load_params(file)
        except ValueError as error:
            assert str(file) in str(error)  # noqa: PT017
            for name, array in PARAMETERS.items():
                np.testing.assert_array_equal(NET.params[name], array)
        else:
            assert np.isfinite(NET.params.flat).all()

    assert peak(call) < LARGEST


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def results(draw):
    """A result with anything in place of a few of its values."""
    content = json.loads(json.dumps({"benchmarks": ON_CPU[:3]}))
    for _ in range(draw(st.integers(0, 3))):
        parent, place = None, content
        while isinstance(place, dict | list) and place and (parent is None or draw(st.integers(0, 3))):
            key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
            parent, place = place, place[key]
        if parent is not None:
            parent[key] = draw(json_values)
    return json.dumps(content).encode()


whole_result = st.just(json.dumps({"benchmarks": ON_CPU[:2]}).encode())


@ANY_FILE
@given(
    content=st.binary(max_size=40)
    | json_values.map(lambda v: json.dumps(v).encode())
    | damaged(whole_result)
    | results()
)
def test_read_benchmarks(tmp_path, content):
    file = tmp_path / "result.json"
    file.write_bytes(content)

    def call():
        try:
            render_markdown(read([file])).encode()
        except Unreadable as error:
            assert str(error).startswith(f"{file}: ")  # noqa: PT017

    assert peak(call) < LARGEST


def test_a_reader_leaves_an_error_of_the_system_as_it_is(tmp_path):
    with pytest.raises(IsADirectoryError):
        NET.load_params(tmp_path)
