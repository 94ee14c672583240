"""Estimators for scikit-learn: perceptrons in place of its own, and wrappers of any network (docs/sklearn.md).

Importing this package imports scikit-learn, which ``xpnet[sklearn]`` installs.
"""

from xpnet.extras import import_extra

import_extra("sklearn", "sklearn")

from xpnet.sklearn.mlp import MLPClassifier, MLPRegressor  # noqa: E402
from xpnet.sklearn.wrappers import NetClassifier, NetRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "NetClassifier", "NetRegressor"]
