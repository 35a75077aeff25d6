"""Checkpoints without a framework: read, write."""

from npreparam.checkpoints._checkpoint import Checkpoint, PassedOver, Span
from npreparam.checkpoints._door import load, save

__all__ = ["Checkpoint", "PassedOver", "Span", "load", "save"]
