"""Trouble with Numba and its cache costs a warning or an error with its remedy, never a result."""

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from xpnet import kernels

needs_numba = pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="Numba is not installed")

RELU = """
import numpy as np
from xpnet import kernels
with kernels.using("numba"):
    print(kernels.relu(np.array([-1.0, 2.0]))[0])
"""

STEPS = """
import numpy as np
from xpnet.nets import Sequential
from xpnet.optimizers import SGD
step = Sequential.mlp([4, 3, 2], seed=0).compile(SGD(0.1), 5{})
losses = step.run(np.ones((5, 4), "float32"), np.ones(5, int), np.arange(50).reshape(10, 5) % 5)
print(step.backend, losses[-1] < losses[0])
"""


def run_program(program, **environment):
    environment = {**os.environ, "PYTHONWARNINGS": "default", **environment}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    return done.stdout, done.stderr


@needs_numba
class TestNumbasCache:
    """Trouble with the files costs a compilation and one warning, never a result."""

    @pytest.mark.parametrize(("suffix", "size"), [(".nbi", 0), (".nbc", 30)])
    def test_damaged_files_are_replaced(self, tmp_path, suffix, size):
        assert run_program(RELU, NUMBA_CACHE_DIR=str(tmp_path)) == ("[0. 2.]\n", "")
        files = list(tmp_path.rglob(f"*{suffix}"))
        assert files
        for file in files:
            os.truncate(file, size)
        out, err = run_program(RELU, NUMBA_CACHE_DIR=str(tmp_path))
        assert out == "[0. 2.]\n"
        assert err.count("RuntimeWarning") == 1
        assert "damaged files are replaced" in err
        assert run_program(RELU, NUMBA_CACHE_DIR=str(tmp_path)) == ("[0. 2.]\n", "")

    def test_files_of_another_version_are_replaced(self, tmp_path):
        run_program(RELU, NUMBA_CACHE_DIR=str(tmp_path))
        for file in tmp_path.rglob("*.nbi"):
            file.write_bytes(pickle.dumps("0.1") + b"whatever")
        assert run_program(RELU, NUMBA_CACHE_DIR=str(tmp_path)) == ("[0. 2.]\n", "")

    def test_a_full_disk_is_named(self, tmp_path):
        pytest.importorskip("resource", reason="only POSIX limits the size of files")
        full = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))" + RELU
        out, err = run_program(full, NUMBA_CACHE_DIR=str(tmp_path))
        assert out == "[0. 2.]\n"
        assert err.count("RuntimeWarning") == 1
        assert "cannot be written (OSError: [Errno 27] File too large)" in err
        assert "set NUMBA_CACHE_DIR to a folder that can be written" in err

    def test_a_folder_that_cannot_be_created_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        out, err = run_program(
            "from numba.core import caching\ncaching.CacheImpl._locator_classes = []\n" + RELU,
            NUMBA_CACHE_DIR=str(tmp_path / "file" / "folder"),
        )
        assert out == "[0. 2.]\n"
        assert err.count("RuntimeWarning") == 1
        assert "Numba has no folder for its cache" in err


class TestBrokenNumba:
    """Numba that is installed and does not work: NumPy if xpnet chooses, an error if the user chose it."""

    @pytest.fixture(params=["ImportError('needs NumPy 2.2 or less')", "SystemError('initialization failed')", "jit"])
    def trouble(self, request, tmp_path):
        if request.param == "jit":
            pytest.importorskip("numba", reason="Numba is not installed")
            return {"NUMBA_DISABLE_JIT": "1"}, "unset NUMBA_DISABLE_JIT"
        (tmp_path / "numba").mkdir()
        (tmp_path / "numba" / "__init__.py").write_text(f"raise {request.param}")
        path = os.pathsep.join([str(tmp_path), str(Path(kernels.__file__).parents[2])])
        return {"PYTHONPATH": path}, "pip install --force-reinstall 'xpnet[numba]'"

    @pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("scipy", "threadpoolctl"))), reason="NumPy would be chosen anyway"
    )
    def test_numpy_computes_after_one_warning(self, trouble):
        environment, remedy = trouble
        out, err = run_program(STEPS.format(""), **environment)
        assert out == "numpy True\n"
        assert err.count("RuntimeWarning") == 1
        assert "computing with NumPy" in err
        assert remedy in err

    def test_an_error_names_the_remedy_if_numba_was_asked_for(self, trouble):
        environment, remedy = trouble
        out, err = run_program(STEPS.format(", backend='numba'"), **environment)
        last = err.strip().rpartition("\n")[2]
        assert out == ""
        assert last.startswith("ImportError: the backend 'numba' does not work: ")
        assert remedy in last
