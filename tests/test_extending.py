"""An activation or an update rule added in one file is there everywhere: in networks and on the command line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xpnet

ACTIVATION = '''

@activation("cube", gain=1.0)
class Cube(Layer):
    """y = x^3, which nobody needs."""

    formula = Formula("x ^ 3", "dout \\u00d7 3 x ^ 2")
    saved = ("x",)

    def forward(self, x, train=True):
        self.x = x
        return x**3

    def backward(self, dout):
        return dout * 3.0 * self.x**2
'''

RULE = '''

class SignDescent(Optimizer):
    """p <- p - lr * sign(g)."""

    def rule(self, p, g, state, coefficients, scratch):
        p -= coefficients[0] * get_array_module(g).sign(g)
'''


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """Copy the package, and add an activation and a rule, each to one file; return how to run a program there."""
    root = tmp_path_factory.mktemp("extended")
    shutil.copytree(Path(xpnet.__file__).parent, root / "xpnet", ignore=shutil.ignore_patterns("__pycache__"))
    for name, code, cls in (("layers/activation", ACTIVATION, "Cube"), ("optimizers/lion", RULE, "SignDescent")):
        file = root / f"xpnet/{name}.py"
        file.write_text(re.sub(r"__all__ = \[", f'__all__ = ["{cls}", ', file.read_text(), count=1) + code)

    def run(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(root)}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_command_line_offers_and_trains_both(extended):
    done = extended("-m", "xpnet", "train", "--activation", "cube", "--optimizer", "signdescent", "--steps", "20")
    assert (done.returncode, done.stderr) == (0, "")
    assert "784-50-10" in done.stdout
    wrong = extended("-m", "xpnet", "train", "--activation", "square")
    assert wrong.returncode == 2
    assert "cube" in wrong.stderr


def test_networks_initial_weights_and_graph_pages_know_the_activation(extended):
    done = extended(
        "-c",
        "import xpnet.layers, xpnet.initializers; from xpnet.nets import Sequential; from xpnet.graph import rules;"
        "print(*Sequential.mlp([4, 3, 2], 'cube').layers, xpnet.initializers.scale('cube', (4, 3)));"
        "print(rules.rule_of(xpnet.layers.Cube()).forward)",
    )
    assert done.stdout.split() == ["Affine1", "Cube1", "Affine2", "0.5", "x", "^", "3"], done.stderr
