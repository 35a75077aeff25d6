"""`onnx.reference`, the evaluator that the ONNX project ships."""

from __future__ import annotations

from typing import Any

from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.adapters._graphs import UNSUPPORTED, OnnxGraphs
from npreparam.conformance.target import Declaration


class OnnxReference(OnnxGraphs):
    """Every call is a model of one node."""

    def __init__(self) -> None:
        super().__init__(_evaluated)

    def declare(self) -> Declaration:
        """Version, dtypes, and the running variance of ONNX, which is the biased one."""
        onnx = _arrays.framework("onnx", "npreparam[onnx]")
        return Declaration("onnx.reference", onnx.__version__, ("float32", "float64", "float16"), UNSUPPORTED, running_variance="biased",
                           conventions={"infinity_on_padding": "multiply"})


def _evaluated(model: bytes, inputs: dict[str, Array]) -> list[Array]:
    import onnx
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.ModelProto.FromString(model)).run(None, inputs)


evaluator = OnnxReference()


def __getattr__(name: str) -> Any:
    """The module itself offers what `evaluator` does."""
    return getattr(evaluator, name)
