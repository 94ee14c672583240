"""Choose a perceptron for scikit-learn's digits by GridSearchCV, on the CPU or on a GPU (docs/sklearn.md)."""

import argparse

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from xpnet.sklearn import MLPClassifier

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--device", default="cpu", help="cpu, cuda or auto")
parser.add_argument("--passes", type=int, default=30)
arguments = parser.parse_args()

X_train, X_test, y_train, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
model = MLPClassifier(max_iter=arguments.passes, early_stopping=True, device=arguments.device, random_state=0)
grid = {
    "mlpclassifier__hidden_layer_sizes": [(50,), (50, 50)],
    "mlpclassifier__learning_rate_init": [0.001, 0.01],
    "mlpclassifier__dropout": [0.0, 0.2],
}
search = GridSearchCV(make_pipeline(MinMaxScaler(), model), grid, cv=3).fit(X_train, y_train)
for name, value in search.best_params_.items():
    print(f"{name.removeprefix('mlpclassifier__')} {value}")
print(f"test accuracy {search.score(X_test, y_test):.3f}")
