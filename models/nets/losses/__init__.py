"""Losses on the raw outputs of a net: `of(model)` is the one way to that of a model, its options bound.

A loss is a set of pure functions (`loss.py`), made by its options (a file for each kind); `table.py` is the one list.
"""

from models.nets.losses.loss import LabelError, Labels, Loss, Metrics, measure, measure_all
from models.nets.losses.table import LOSSES, of

__all__ = ["LOSSES", "LabelError", "Labels", "Loss", "Metrics", "measure", "measure_all", "of"]
