"""Downloads of data sets by name, from hosts on this machine that misbehave. The real hosts are untried."""

import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from test_datasets import idx

from xpnet.datasets import DatasetError, load_dataset
from xpnet.datasets.remote import REMOTE, RemoteFiles, fetch

pytest.importorskip("pooch", reason="pooch is not installed")

ARRAYS = {
    "train-images-idx3-ubyte.gz": np.arange(240, dtype="uint8").reshape(12, 4, 5),
    "train-labels-idx1-ubyte.gz": np.arange(12, dtype="uint8") % 3,
    "t10k-images-idx3-ubyte.gz": np.arange(80, dtype="uint8").reshape(4, 4, 5),
    "t10k-labels-idx1-ubyte.gz": np.arange(4, dtype="uint8") % 3,
}
CONTENT = {name: gzip.compress(idx(array), mtime=0) for name, array in ARRAYS.items()}
FIRST, LAST = next(iter(CONTENT)), list(CONTENT)[-1]


class Host(ThreadingHTTPServer):
    """A host with the files; `faults` says by a file's name what goes wrong with it."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults, self.asked, self.closing = {}, [], threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.asked.append(name)
        content, fault = CONTENT[name], self.server.faults.get(name)
        if fault == "silence":
            self.server.closing.wait(60)
            return
        self.send_response(404 if fault == "missing" else 200)
        if fault != "length unknown":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault == "stall":
            self.wfile.write(content[:10])
            self.wfile.flush()
            self.server.closing.wait(60)
            return
        if fault in ("truncated", "length unknown"):
            content = content[: len(content) // 2]
        self.wfile.write(b"!" * len(content) if fault == "damaged" else content)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def hosts(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    hosts = [Host(), Host()]
    threads = [threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.01}) for host in hosts]
    for thread in threads:
        thread.start()
    yield hosts
    for host, thread in zip(hosts, threads, strict=True):
        host.closing.set()
        host.shutdown()
        thread.join()
        host.server_close()


def files_of(*hosts):
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in CONTENT.items()}
    return RemoteFiles(tuple(host.url for host in hosts), md5, ("a", "b", "c"))


def test_a_data_set_is_loaded_by_its_name_and_asked_for_once(hosts, tmp_path, monkeypatch):
    monkeypatch.setitem(REMOTE, "kmnist", files_of(*hosts))
    for _ in range(2):
        data = load_dataset("kmnist", cache=tmp_path, timeout=5)
        np.testing.assert_array_equal(data.x_train[:, 0], ARRAYS[FIRST])
        np.testing.assert_array_equal(data.t_test, [0, 1, 2, 0])
        assert data.classes == ("a", "b", "c")
    assert hosts[0].asked == list(CONTENT)
    assert hosts[1].asked == []
    reordered = load_dataset("kmnist", cache=tmp_path, classes=["c", "b", "a"])
    np.testing.assert_array_equal(reordered.t_test, [2, 1, 0, 2])


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("missing", "HTTP status 404"),
        ("damaged", "the file has another checksum"),
        ("truncated", "the connection ended early"),
        ("length unknown", "the file has another checksum"),
        ("silence", "no answer within 0.2 s"),
        ("stall", "no answer within 0.2 s"),
    ],
)
def test_a_failure_names_file_host_reason_and_folder_and_the_next_call_goes_on(hosts, tmp_path, fault, reason):
    host, _ = hosts
    host.faults[LAST] = fault
    with pytest.raises(DatasetError) as caught:
        fetch("digits", files_of(host), tmp_path, timeout=0.2)
    message = str(caught.value)
    assert f"digits: no mirror has {LAST}: {host.url}{LAST}: {reason}. " in message
    assert f"kept in {tmp_path / 'digits'}" in message
    assert f"(MD5 {files_of().md5[LAST]}) there by hand" in message
    assert "\n" not in message
    folder = tmp_path / "digits"
    assert sorted(path.name for path in folder.iterdir()) == sorted(set(CONTENT) - {LAST})
    host.faults.clear()
    host.asked.clear()
    assert fetch("digits", files_of(host), tmp_path, timeout=5) == folder
    assert host.asked == [LAST]


@pytest.mark.parametrize("fault", ["missing", "damaged", "truncated", "silence"])
def test_the_second_mirror_helps_and_is_asked_first_from_then_on(hosts, tmp_path, fault):
    hosts[0].faults = dict.fromkeys(CONTENT, fault)
    fetch("digits", files_of(*hosts), tmp_path, timeout=0.5)
    assert hosts[0].asked == [FIRST]
    assert hosts[1].asked == list(CONTENT)


def test_a_broken_file_is_fetched_again_and_one_put_there_by_hand_is_not(hosts, tmp_path):
    host, _ = hosts
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / FIRST).write_bytes(CONTENT[FIRST][:-1])
    (tmp_path / "digits" / LAST).write_bytes(CONTENT[LAST])
    fetch("digits", files_of(host), tmp_path, timeout=5)
    assert host.asked == list(CONTENT)[:-1]
    assert (tmp_path / "digits" / FIRST).read_bytes() == CONTENT[FIRST]


def test_without_a_network_the_error_has_each_address(hosts, tmp_path):
    port = hosts[0].server_port
    files = RemoteFiles((f"http://127.0.0.1:{port}/", "http://nowhere.invalid/"), files_of().md5, ())
    hosts[0].faults[FIRST] = "missing"
    with pytest.raises(
        DatasetError, match=rf"/{FIRST}: HTTP status 404; http://nowhere.invalid/{FIRST}: no connection"
    ):
        fetch("digits", files, tmp_path, timeout=5)


def test_a_folder_that_cannot_be_made_is_named(hosts, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match=f"{FIRST}: .*"):
        fetch("digits", files_of(hosts[0]), tmp_path / "file", timeout=5)


def test_the_published_checksums_are_md5():
    for files in REMOTE.values():
        assert list(files.md5) == list(CONTENT)
        assert all(len(bytes.fromhex(md5)) == 16 for md5 in files.md5.values())
        assert all(mirror.endswith("/") for mirror in files.mirrors)
        assert len(files.classes) == 10
