"""scikit-learn: `MLPClassifier.partial_fit`, a minibatch a call."""

from __future__ import annotations

import numpy as np
from sklearn.neural_network import MLPClassifier

from . import Missing, Party


class ScikitLearn(Party):
    """Plain gradient descent: no momentum, no L2 penalty, and no shuffling within the minibatch."""

    def __init__(self, work, device, seed=0):
        if device.name != "cpu":
            raise Missing("scikit-learn runs on the CPU")
        (self.x, self.t), (self.x_test, self.t_test) = work.data()
        self.network = MLPClassifier(
            work.sizes[1:-1],
            solver="sgd",
            learning_rate_init=work.lr,
            batch_size=work.batch,
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
            shuffle=False,
            random_state=seed,
        )
        # It makes its weights in the first call; ours then take their place.
        self.network.partial_fit(self.x[: work.batch], self.t[: work.batch], classes=np.arange(work.sizes[-1]))
        for name, values in work.initial_parameters(seed).items():
            self._arrays()[name][...] = values

    def run(self, indices):
        for index in indices:
            self.network.partial_fit(self.x[index], self.t[index])

    def synchronize(self):
        pass

    def parameters(self):
        return {name: values.copy() for name, values in self._arrays().items()}

    def accuracy(self):
        return self.network.score(self.x_test, self.t_test)

    def _arrays(self):
        pairs = enumerate(zip(self.network.coefs_, self.network.intercepts_, strict=True), 1)
        return {f"{name}{number}": values for number, pair in pairs for name, values in zip("Wb", pair, strict=True)}
