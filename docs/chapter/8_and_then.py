"""
And then
========

The book goes on, and so does the library. The layers that follow obey the same rule: a ``forward``, and a ``backward``
with the local derivative.
"""

# %%
# Better learning (chapter 6)
# ---------------------------
# - *Update rules.* :doc:`SGD, Momentum, AdaGrad and others </gallery/compare_optimizers>` learn the same digits, each
#   at its own pace. :doc:`The table of rules </optimizers>` has their formulas side by side.
# - *Initial weights.* :doc:`Their scale </gallery/compare_weight_init>` decides whether a deep network learns at all.
# - *Batch normalization.* :doc:`It helps </gallery/batch_normalization>` where the initial weights don't.
# - *Overfitting.* :doc:`Weight decay and dropout </gallery/overfitting>` keep a network from learning a few hundred
#   images by heart.
#
# Images (chapters 7 and 8)
# -------------------------
# :doc:`A convolutional network </gallery/train_convnet>` sees neighboring pixels together.
# :doc:`Residual blocks </gallery/residual_network>` let the gradient past the layers of a deep one.
#
# Sequences
# ---------
# An LSTM reads one element after the other. Its gates are sigmoids that multiply. The graph is an LSTM of a single unit
# over two steps. Its backward pass runs from the second step to the first.

from pathlib import Path

from xpnet import examples

graph = examples.build("lstm")
Path("lstm.html").write_text(graph.to_html(), encoding="utf-8")

# %%
# :doc:`Text and other sequences </sequences>` has the networks, up to a small GPT.
#
# A layer of one's own
# --------------------
# :class:`~xpnet.layers.Layer` is the base class. :mod:`xpnet.testing` checks a new layer, as section 5.7 checks the
# network. :doc:`How the code is laid out </architecture>` says what else there is to know.
