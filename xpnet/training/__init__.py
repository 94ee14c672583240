"""Training loop of section 5.7.4, its callbacks, and its history."""

from xpnet.training.callbacks import Callback, PrintProgress
from xpnet.training.history import Evaluation, History
from xpnet.training.trainer import Trainer

__all__ = ["Callback", "Evaluation", "History", "PrintProgress", "Trainer"]
