"""Checks of layers, losses and update rules of one's own; CuPy without a GPU (`xpnet.testing.cuda_stand_in`)."""

from xpnet.testing.layer import check_layer
from xpnet.testing.loss import check_loss
from xpnet.testing.optimizer import check_optimizer
from xpnet.testing.report import Check, Report

__all__ = ["Check", "Report", "check_layer", "check_loss", "check_optimizer"]
