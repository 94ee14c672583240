"""Files are written whole or not at all, where the caller said, and with the rights that they had."""

import errno
import os
import stat

import numpy as np
import pytest

from xpnet.files import save_arrays, stored_arrays, written_atomically


def write(file, content=b"new"):
    with written_atomically(file) as stream:
        stream.write(content)


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o640)
    write(file)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [file]


def test_a_new_file_has_the_mode_of_any_other(tmp_path):
    write(tmp_path / "atomically")
    (tmp_path / "plainly").write_bytes(b"")
    assert (tmp_path / "atomically").stat().st_mode == (tmp_path / "plainly").stat().st_mode


def test_after_an_error_the_old_file_is_there_and_nothing_else(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), written_atomically(file) as stream:
        stream.write(b"%d" % (1 / 0))
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_full_disk_is_said_of_the_file_not_of_the_temporary_one(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as caught, written_atomically(tmp_path / "file"):
        raise full
    assert caught.value.filename == str(tmp_path / "file")


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "file", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_link_to_nothing_makes_the_file(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write(tmp_path / "link")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_pipe_is_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write(pipe)
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_read_only_file_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    file.chmod(0o444)
    with pytest.raises(PermissionError, match="read-only") as caught:
        write(file)
    assert caught.value.filename == str(file)
    assert file.read_bytes() == b"old"


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such file or directory") as caught:
        write(tmp_path / "none" / "file")
    assert caught.value.filename == str(tmp_path / "none")


def test_the_folder_is_flushed_after_the_file_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace

    def recorded_fsync(descriptor):
        done.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", lambda *names: done.append("rename") or replace(*names))
    write(tmp_path / "file")
    assert done == ["file", "rename", "folder"]


def test_a_name_of_the_greatest_length_is_written(tmp_path):
    file = tmp_path / ("x" * os.pathconf(tmp_path, "PC_NAME_MAX"))
    write(file)
    assert file.read_bytes() == b"new"


def test_no_error_names_a_temporary_file(tmp_path, monkeypatch):
    def refuse(temporary, *_):
        raise PermissionError(errno.EACCES, "Permission denied", temporary)

    for function in ("chmod", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, refuse)
            with pytest.raises(PermissionError) as caught:
                write(tmp_path / "file")
        assert caught.value.filename == str(tmp_path / "file")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_device_is_named():
    with pytest.raises(OSError, match="No space left on device") as caught:
        write("/dev/full")
    assert caught.value.filename == "/dev/full"


def test_arrays_come_back(tmp_path):
    arrays = {"W1": np.arange(6.0).reshape(2, 3), "b1": np.zeros(0, "float32")}
    save_arrays(tmp_path / "file.npz", arrays)
    with stored_arrays(tmp_path / "file.npz") as stored:
        assert stored.keys() == arrays.keys()
        for name, values in arrays.items():
            found = stored[name].read()
            np.testing.assert_array_equal(found, values)
            assert (
                (stored[name].dtype, stored[name].shape) == (found.dtype, found.shape) == (values.dtype, values.shape)
            )
