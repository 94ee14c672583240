"""Time to fit of xpnet's MLPClassifier beside scikit-learn's, in turns.

``--work mnist`` trains a perceptron with Adam in float32, with minibatches of 200, also by a loop of PyTorch's.
``--work iris`` has 150 samples and 200 passes, and ``--work grid`` is a search over 24 settings on digits. Rounds are
interleaved: each party has a fit in each round. The table has medians, with the fastest and the slowest round. With
``--without-numba`` xpnet computes as if Numba was missing.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import threads

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--work", choices=["mnist", "iris", "grid"], default="mnist")
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--passes", type=int, default=2, help="over MNIST")
parser.add_argument("--samples", type=int, default=60_000)
parser.add_argument("--layers", type=int, nargs="+", default=[50])
parser.add_argument("--alpha", type=float, default=1e-4)
parser.add_argument("--without-numba", action="store_true")
parser.add_argument("--threads", type=int, default=threads.available())


def with_pytorch(X: Any, y: Any, layers: list[int], passes: int, alpha: float) -> Callable[[], object]:
    """Return a fit by PyTorch, eager."""
    import torch

    X, y = torch.from_numpy(X), torch.from_numpy(y).long()

    def fit() -> None:
        sizes = [X.shape[1], *layers, 10]
        rows = [m for a, b in itertools.pairwise(sizes) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
        model = torch.nn.Sequential(*rows[:-1])
        optimizer = torch.optim.Adam(model.parameters(), weight_decay=alpha / 200)
        for _ in range(passes):
            for chosen in torch.randperm(len(X)).split(200):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(X[chosen]), y[chosen]).backward()
                optimizer.step()

    return fit


def parties(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return a fit per party."""
    from joblib import parallel_config
    from sklearn import neural_network
    from sklearn.datasets import load_digits, load_iris
    from sklearn.model_selection import GridSearchCV

    from xpnet.datasets import load_mnist
    from xpnet.sklearn import MLPClassifier

    classes = {"xpnet": MLPClassifier, "scikit-learn": neural_network.MLPClassifier}
    if arguments.work == "grid":
        X, y = load_digits(return_X_y=True)
        grid = {
            "alpha": [1e-4, 1e-2],
            "learning_rate_init": [0.001, 0.003, 0.01],
            "hidden_layer_sizes": [(20,), (50,), (100,), (20, 20)],
        }
        searches = {
            name: GridSearchCV(cls(max_iter=20, random_state=0), grid, cv=2, n_jobs=arguments.threads)
            for name, cls in classes.items()
        }

        def fit(search: GridSearchCV) -> None:
            # The environment, set by threads.pin, would give each process of joblib all threads.
            with parallel_config("loky", inner_max_num_threads=1):
                search.fit(X / 16, y)

        return {name: partial(fit, search) for name, search in searches.items()}
    (X, y), passes = load_iris(return_X_y=True), 200
    if arguments.work == "mnist":
        (X, y), _ = load_mnist()
        X, y, passes = X[: arguments.samples], y[: arguments.samples], arguments.passes
    settings = {"max_iter": passes, "alpha": arguments.alpha, "random_state": 0, "n_iter_no_change": 10**6}
    models = {name: cls(arguments.layers, **settings) for name, cls in classes.items()}
    fits = {name: lambda model=model: model.fit(X, y) for name, model in models.items()}
    if arguments.work == "mnist":
        fits["PyTorch, eager"] = with_pytorch(X, y, arguments.layers, passes, arguments.alpha)
    return fits


def main() -> None:
    arguments = parser.parse_args()
    threads.pin(arguments.threads)
    if arguments.without_numba:
        sys.modules["numba"] = None  # type: ignore[assignment]
    warnings.filterwarnings("ignore", category=UserWarning)  # fits of a few passes do not converge
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning"  # in joblib's processes
    fits = parties(arguments)
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    for number in range(arguments.rounds + 1):
        for name, fit in fits.items():
            start = time.perf_counter()
            fit()
            if number:  # the first round compiles and warms up
                seconds[name].append(time.perf_counter() - start)
    print(f"{arguments.work}, {arguments.threads} threads, medians of {arguments.rounds} rounds (fastest to slowest)")
    for name, taken in seconds.items():
        ratio = median(seconds["scikit-learn"]) / median(taken)
        print(
            f"{name:15} {median(taken):8.3f} s ({min(taken):.3f} to {max(taken):.3f}), {ratio:5.2f} times as fast as "
            "scikit-learn"
        )


if __name__ == "__main__":
    main()
