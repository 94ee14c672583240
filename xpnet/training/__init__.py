"""Training loop of section 5.7.4, its callbacks, its history, and checkpoints."""

from xpnet.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    JSONLLogger,
    PrintProgress,
    ReduceLROnPlateau,
    TensorBoard,
)
from xpnet.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from xpnet.training.history import Evaluation, History
from xpnet.training.trainer import Trainer

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "Evaluation",
    "History",
    "JSONLLogger",
    "PrintProgress",
    "ReduceLROnPlateau",
    "TensorBoard",
    "Trainer",
    "load_checkpoint",
    "save_checkpoint",
]
