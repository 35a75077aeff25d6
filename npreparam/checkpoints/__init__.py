"""Checkpoints without a framework: read, write, and recognise the re-parameterizable blocks."""

from npreparam.checkpoints._checkpoint import Checkpoint, PassedOver, Span
from npreparam.checkpoints._door import load, save
from npreparam.checkpoints._families import families
from npreparam.checkpoints._pattern import Pattern, read_patterns
from npreparam.checkpoints._recognise import Block, Recognition, recognise

__all__ = ["Block", "Checkpoint", "PassedOver", "Pattern", "Recognition", "Span", "families", "load", "read_patterns", "recognise", "save"]
