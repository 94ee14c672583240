"""Observers are handed the calls of kernels and layers."""

import sys
import threading

import numpy as np
import pytest

from xpnet import kernels


class TestObservers:
    """An observer is handed each call of a kernel, and of `kernels.call`, in its context."""

    class Doubling:
        def forward(self, x):
            return kernels.matmul(x, x, out=np.empty_like(x)) + kernels.call(self, "shift", 1.0)

        def shift(self, number):
            return number

    @staticmethod
    def recorder(seen):
        """An observer that writes down the calls, with those made within a call between its beginning and its end."""

        def observer(call):
            seen.append(f"{call.name} of {type(call.owner).__name__ if call.owner else 'kernels'}")
            try:
                return call.run()
            finally:
                seen.append(f"end of {call.name}")

        return observer

    def test_it_sees_calls_within_calls(self):
        seen, layer = [], self.Doubling()
        with kernels.observing(self.recorder(seen)):
            y = kernels.call(layer, "forward", np.eye(2))
        np.testing.assert_array_equal(y, np.eye(2) + 1)
        within = ["matmul of kernels", "end of matmul", "shift of Doubling", "end of shift"]
        assert seen == ["forward of Doubling", *within, "end of forward"]

    def test_it_sees_kernels_within_kernels(self, rng):
        seen, (p, g, v, scratch) = [], rng.random((4, 3))
        with kernels.observing(self.recorder(seen)):
            kernels.momentum_update(p, g, v, 0.1, 0.9, True, scratch)
        assert seen == [
            "momentum_update of kernels",
            "sgd_update of kernels",
            "end of sgd_update",
            "end of momentum_update",
        ]

    def test_it_is_told_the_owner_and_the_arguments(self):
        calls, layer, x = [], self.Doubling(), np.eye(2)
        with kernels.observing(lambda call: calls.append(call) or call.run()):
            kernels.call(layer, "forward", x)
        forward, matmul, shift = calls
        assert forward.owner is shift.owner is layer
        assert matmul.owner is None
        assert forward.args[0] is matmul.args[0] is matmul.args[1] is x
        assert shift.args == (1.0,)

    def test_what_it_returns_is_the_result(self):
        with kernels.observing(lambda call: (call.name, call.run())):
            name, (y, mask) = kernels.relu(np.array([-1.0, 2.0]))
            assert kernels.call(self.Doubling(), "shift", 3) == ("shift", 3)
        assert (name, y.tolist(), mask.tolist()) == ("relu", [0, 2], [False, True])

    def test_without_one_a_call_is_the_methods(self):
        assert kernels.call(self.Doubling(), "shift", 3) == 3
        with pytest.raises(AttributeError, match="backwards"):
            kernels.call(self.Doubling(), "backwards")

    def test_it_ends_with_its_context_also_by_an_exception(self):
        seen = []
        with pytest.raises(ValueError, match="matmul"), kernels.observing(self.recorder(seen)):
            kernels.matmul(np.eye(2), np.eye(3))
        assert seen == ["matmul of kernels", "end of matmul"]
        kernels.matmul(np.eye(2), np.eye(2))
        assert len(seen) == 2

    def test_the_inner_one_takes_the_place_of_the_outer(self):
        outer, inner = [], []
        with kernels.observing(self.recorder(outer)):
            with kernels.observing(self.recorder(inner)):
                kernels.relu(np.zeros(1))
            assert (len(outer), len(inner)) == (0, 2)
            kernels.relu(np.zeros(1))
        assert (len(outer), len(inner)) == (2, 2)

    def test_threads_do_not_share_it(self):
        seen = []
        with kernels.observing(self.recorder(seen)):
            thread = threading.Thread(target=kernels.relu, args=(np.zeros(1),))
            thread.start()
            thread.join()
        assert seen == []

    def test_backend_and_precision_are_kept_with_it_and_it_with_them(self, monkeypatch):
        own = type(
            "Module", (), {"relu": staticmethod(lambda x: "own"), "matmul": staticmethod(lambda *_: NotImplemented)}
        )
        monkeypatch.setitem(sys.modules, "xpnet.kernels.numba", own)
        seen = []
        with kernels.using("numba", "tf32"), kernels.observing(self.recorder(seen)):
            assert (kernels.relu(np.zeros(1)), kernels.precision()) == ("own", "tf32")
            np.testing.assert_array_equal(kernels.matmul(np.eye(2), np.eye(2)), np.eye(2))  # left to the definition
            with kernels.using():
                assert kernels.precision() == "float32"
                assert kernels.relu(np.zeros(1))[0] == 0
            assert (kernels.relu(np.zeros(1)), kernels.precision()) == ("own", "tf32")
        assert [name.split()[0] for name in seen[::2]] == ["relu", "matmul", "relu", "relu"]
        assert kernels.precision() == "float32"

    def test_it_sees_kernels_on_every_device(self, device):
        seen = []
        with kernels.observing(self.recorder(seen)):
            y, _ = kernels.relu(device.asarray([-1.0, 2.0]))
        assert device.asnumpy(y).tolist() == [0, 2]
        assert seen == ["relu of kernels", "end of relu"]
