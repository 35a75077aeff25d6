"""An ONNX backend over `npreparam.ops`: run ONNX models, and the official ONNX tests, on the reference (extra `onnx`)."""

from npreparam.conformance.onnx_backend.backend import NpreparamBackend, Prepared

__all__ = ["NpreparamBackend", "Prepared"]
