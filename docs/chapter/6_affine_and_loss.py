r"""
5.6 Affine and Softmax-with-Loss
================================

Two layers are left: the one with the weights, and the one that compares the scores with the labels.
"""

# %%
# Affine
# ------
# An affine layer multiplies by weights and adds biases, :math:`\mathbf Y = \mathbf X \mathbf W + \mathbf b`. The rows
# of :math:`\mathbf X` are the N samples of a batch:
#
# .. math::
#
#    \underset{(N, M)}{\mathbf Y} = \underset{(N, D)}{\mathbf X} \; \underset{(D, M)}{\mathbf W}
#    + \underset{(M)}{\mathbf b}
#
# Backward, it has three results:
#
# .. math::
#
#    \underset{(N, D)}{\frac{\partial L}{\partial \mathbf X}}
#    = \underset{(N, M)}{\frac{\partial L}{\partial \mathbf Y}} \; \underset{(M, D)}{\mathbf W^{\mathsf T}}
#
# .. math::
#
#    \underset{(D, M)}{\frac{\partial L}{\partial \mathbf W}}
#    = \underset{(D, N)}{\mathbf X^{\mathsf T}} \; \underset{(N, M)}{\frac{\partial L}{\partial \mathbf Y}}
#
# .. math::
#
#    \underset{(M)}{\frac{\partial L}{\partial \mathbf b}}
#    = \sum_{n=1}^{N} \left( \frac{\partial L}{\partial \mathbf Y} \right)_n
#
# The shapes are a guide. A gradient has the shape of what it belongs to, and that leaves one order for each product.
# :class:`~xpnet.layers.Affine` leaves the last two in ``dW`` and ``db``.

from pathlib import Path

import numpy as np

from xpnet.functions import softmax
from xpnet.graph import Graph, Input
from xpnet.layers import Affine, SoftmaxWithLoss

W = np.array([[0.2, -0.4, 0.6], [0.5, 0.1, -0.3]])
affine = Affine(W, np.array([1.0, 2.0, 3.0]))
X = np.array([[1.0, 2.0], [3.0, -1.0]])
Y = affine.forward(X)
dx = affine.backward(np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))

print("X", X.shape, "W", W.shape, "Y", Y.shape)
print("dx", dx.shape, "dW", affine.dW.shape, "db", affine.db.shape)
print("db =", affine.db)
assert (affine.db == [5, 7, 9]).all()

# %%
# Each bias is added to every sample. So its gradient is the sum over the samples: 1 + 4, 2 + 5, 3 + 6.
#
# Softmax-with-Loss
# -----------------
# Softmax turns scores into probabilities. Cross entropy compares these with the labels:
#
# .. math::
#
#    y_k = \frac{\exp(a_k)}{\sum_i \exp(a_i)} \qquad L = -\sum_k t_k \log y_k
#
# The two belong together, because their derivative is as simple as can be:
#
# .. math::
#
#    \frac{\partial L}{\partial a_k} = y_k - t_k
#
# It is the error: what the network says, minus what is right. Take probabilities 0.3, 0.2 and 0.5, of which the second
# should be 1. Their logarithms are scores that give them.

loss = SoftmaxWithLoss()
t = np.array([0, 1, 0])
loss.forward(np.log([0.3, 0.2, 0.5]), t)
print("far off ", loss.backward().round(3))
assert np.allclose(loss.backward(), [0.3, -0.8, 0.5])

loss.forward(np.log([0.005, 0.99, 0.005]), t)
print("nearly  ", loss.backward().round(3))
assert np.allclose(loss.backward(), [0.005, -0.01, 0.005])

# %%
# A large error sends a large derivative back, and the layers before learn much. A small error changes little.
# :class:`~xpnet.layers.SoftmaxWithLoss` divides by N for a batch, so that L is the mean loss of its samples.
#
# Both as one graph
# -----------------
# The samples above run through affine layer and loss. Choose a node to see its rule and the shapes of its arrays.

x, labels = Input("x", X), Input("t", np.array([[0, 1, 0], [1, 0, 0]]))
scores = Affine(W, np.zeros(3))(x)
L = SoftmaxWithLoss()(scores, labels)
scores.name, L.name = "a", "L"
graph = Graph(L)
graph.forward()
graph.backward()
print(scores.grad)
assert np.allclose(scores.grad, (softmax(scores.value) - labels.value) / len(X))

Path("affine_and_loss.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# Why y - t?
# ----------
# The book's appendix A takes the layer apart. The graph has exponentials, their sum, divisions, logarithms, and the
# labels as factors. Each node's rule is known from the pages before, and yet the ends of the backward pass are
# :math:`y_k - t_k`.

scores = [Input("a1", 0.3), Input("a2", 2.9), Input("a3", 4.0)]
labels = [Input("t1", 0), Input("t2", 1), Input("t3", 0)]
exponentials = [a.exp() for a in scores]
total = exponentials[0] + exponentials[1] + exponentials[2]
outputs = [e / total for e in exponentials]
for k, output in enumerate(outputs, 1):
    output.name = f"y{k}"
terms = [y.log() * t for y, t in zip(outputs, labels, strict=True)]
L = -(terms[0] + terms[1] + terms[2])
L.name = "L"
graph = Graph(L)
graph.forward()
graph.backward()
for a, y, t in zip(scores, outputs, labels, strict=True):
    print(f"dL/d{a.name} = {a.grad:.6f}    y - t = {y.value - t.value:.6f}")
    assert np.isclose(a.grad, y.value - t.value)

Path("softmax.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# Next: :doc:`the layers as a network <7_network>`.
