"""Checkpoints without a framework: read, write, recognise the re-parameterizable blocks, and fuse them with a certificate."""

from npreparam.checkpoints._checkpoint import Checkpoint, PassedOver, Span
from npreparam.checkpoints._door import load, save
from npreparam.checkpoints._families import families
from npreparam.checkpoints._pattern import Pattern, read_patterns
from npreparam.checkpoints._recognise import Block, Recognition, recognise
from npreparam.checkpoints.certificate import Certificate, certify
from npreparam.checkpoints.fold import Folded, fold
from npreparam.checkpoints.graph import FusedGraph, fuse_graph, verify_graph
from npreparam.checkpoints.transform import Fused, Measure, Row, fuse, verify

__all__ = ["Block", "Certificate", "Checkpoint", "Folded", "Fused", "FusedGraph", "Measure", "PassedOver", "Pattern", "Recognition", "Row", "Span",
           "certify", "families", "fold", "fuse", "fuse_graph", "load", "read_patterns", "recognise", "save", "verify", "verify_graph"]
