"""The walk of a training step: the files that it enters are those that docs/architecture.md lists."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpnet
from xpnet.nets import TwoLayerNet
from xpnet.optimizers import SGD
from xpnet.parallel import Local
from xpnet.steps import compile_step

PACKAGE = Path(xpnet.__file__).parent
PAGE = PACKAGE.parent / "docs/architecture.md"


class Two(Local):
    """A rank of two, the other of which adds nothing."""

    size = 2

    def sum(self, array):
        pass


def listed(section):
    """Return the files in the table of a section of the page."""
    text = PAGE.read_text().partition(f"### {section}\n")[2].partition("\n#")[0]
    return re.findall(r"^\| `([\w/]+\.py)` \|", text, re.MULTILINE)


def entered(call):
    """Return the package's files whose functions run in a call, in the order in which they are entered first."""
    found = {}

    def note(frame, event, _):
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE):
            found.setdefault(path.relative_to(PACKAGE).as_posix())

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return list(found)


@pytest.mark.parametrize(
    ("section", "backend"),
    [
        ("One by one, with NumPy", "numpy"),
        ("By two threads, with Numba", "numba"),
        ("By replicas on threads", "numpy"),
        ("By ranks", "numpy"),
        ("As a CUDA graph", "numpy"),
    ],
)
def test_a_step_enters_the_files_of_the_page_in_its_order(section, backend, rng, request):
    device = xpnet.Device("cpu")
    if section == "As a CUDA graph":
        device = request.getfixturevalue("cuda")
    for name in {"numba": ["numba", "scipy", "threadpoolctl"]}.get(backend, []):
        pytest.importorskip(name, reason=f"{name} is not installed")
    x, t = device.asarray(rng.random((200, 784), dtype="float32")), device.asarray(rng.integers(0, 10, 200))
    indices = device.asarray(rng.integers(0, 200, (60, 100)))
    shared = {
        "By replicas on threads": {"threads": 1, "shares": 2},  # a profile sees one thread
        "By ranks": {"communicator": Two()},
    }.get(section, {})
    if shared:
        pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    step = compile_step(TwoLayerNet(784, 50, 10, device=device, seed=0), SGD(0.1), 100, backend, **shared)
    step.run(x, t, indices)  # compiles or captures
    step.run(x, t, indices)
    losses = device.xp.zeros(1, "float32")
    files = entered(lambda: step.run(x, t, indices[:1], losses))
    assert files == listed(section)
    assert len(files) <= (17 if shared else 12)


def test_networks_load_neither_gradient_checks_nor_training_steps():
    code = "import sys, xpnet.nets; print(*(m for m in sys.modules if m.startswith(('xpnet.gradient', 'xpnet.steps'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_walk_sees_what_is_entered():
    get_array_module = xpnet.get_array_module  # the name is imported at its first use
    files = entered(lambda: get_array_module(np.zeros(1)))
    assert files == ["device.py"]
