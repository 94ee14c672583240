"""Test scores of xpnet's perceptrons beside scikit-learn's: equal settings, five seeds, five small sets and MNIST.

A seed sets the initial weights and the order of the samples; the division into training and test set is the same for
all. Prints a table in Markdown, with mean and standard deviation (docs/sklearn.md).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from sklearn import datasets, neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from xpnet import sklearn as ours
from xpnet.datasets import load_mnist

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--seeds", type=int, default=5)
parser.add_argument("--samples", type=int, default=10_000, help="of MNIST's training set")

PASSES = {"digits": 40, "breast cancer": 40, "wine": 200, "diabetes": 200, "synthetic regression": 200, "MNIST": 10}


def divided(arguments: argparse.Namespace) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield the name of a set, the class of its estimator, and X_train, X_test, y_train, y_test."""
    synthetic = datasets.make_regression(n_samples=2000, n_features=20, noise=20.0, random_state=0)
    for name, kind, (X, y) in (
        ("digits", "MLPClassifier", datasets.load_digits(return_X_y=True)),
        ("breast cancer", "MLPClassifier", datasets.load_breast_cancer(return_X_y=True)),
        ("wine", "MLPClassifier", datasets.load_wine(return_X_y=True)),
        ("diabetes", "MLPRegressor", datasets.load_diabetes(return_X_y=True)),
        ("synthetic regression", "MLPRegressor", synthetic),
    ):
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
        scaler = StandardScaler().fit(X_train)
        if kind == "MLPRegressor":
            scale = y_train.std()
            y_train, y_test = y_train / scale, y_test / scale
        yield name, kind, [scaler.transform(X_train), scaler.transform(X_test), y_train, y_test]
    (X_train, y_train), (X_test, y_test) = load_mnist()
    part = slice(arguments.samples)
    yield "MNIST", "MLPClassifier", [X_train[part], X_test, y_train[part], y_test]


def main() -> None:
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConvergenceWarning)
    print("| set | passes | xpnet | scikit-learn | difference of the means |\n|---|---:|---:|---:|---:|")
    for name, kind, (X_train, X_test, y_train, y_test) in divided(arguments):
        scores = []
        for package in ours, neural_network:
            models = [
                getattr(package, kind)(hidden_layer_sizes=(50,), max_iter=PASSES[name], random_state=seed)
                for seed in range(arguments.seeds)
            ]
            scores.append([model.fit(X_train, y_train).score(X_test, y_test) for model in models])
        found, wanted = scores
        cells = [f"{mean(of):.4f} ± {stdev(of):.4f}" for of in scores]
        print(f"| {name} | {PASSES[name]} |", *(f"{cell} |" for cell in cells), f"{mean(found) - mean(wanted):+.4f} |")


if __name__ == "__main__":
    main()
