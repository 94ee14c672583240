"""xpnet: the compiled step that its `Trainer` runs, in NumPy as it is installed by default, and with Numba."""

from __future__ import annotations

from xpnet import asnumpy
from xpnet.optimizers import SGD

from . import Missing, Party


class XpnetCompiled(Party):
    """`Network.compile`; the indices of all steps go to the device at once, as in the `Trainer`'s own loop."""

    backend = "numpy"

    def __init__(self, work, device, seed=0):
        (self.x, self.t), (self.x_test, self.t_test) = (map(device.asarray, part) for part in work.data())
        self.device = device
        self.network = work.build_network(device, seed)
        self.step = self.network.compile(SGD(lr=work.lr), work.batch, self.backend, work.precision)

    def run(self, indices):
        self.losses = self.step.run(self.x, self.t, self.device.asarray(indices))

    def synchronize(self):
        self.device.synchronize()

    def parameters(self):
        return {name: asnumpy(values).copy() for name, values in self.network.params.items()}

    def accuracy(self):
        return self.step.accuracy(self.x_test, self.t_test)


class XpnetNumba(XpnetCompiled):
    """The same with the `numba` extra."""

    backend = "numba"

    def __init__(self, work, device, seed=0):
        if device.name != "cpu":
            raise Missing("xpnet, Numba: it computes on the CPU only")
        import numba  # noqa: F401  # missing if it is not installed

        super().__init__(work, device, seed)
