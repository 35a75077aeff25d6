"""ONNX graphs: every maximal linear region as one convolution (extra `onnx`)."""

from npreparam.checkpoints.graph.transform import FusedGraph, fuse_graph, verify_graph

__all__ = ["FusedGraph", "fuse_graph", "verify_graph"]
