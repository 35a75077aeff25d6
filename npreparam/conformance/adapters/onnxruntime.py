"""ONNX Runtime on the CPU."""

from __future__ import annotations

import functools
from typing import Any

from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.adapters._graphs import UNSUPPORTED, OnnxGraphs
from npreparam.conformance.target import Declaration


class OnnxRuntime(OnnxGraphs):
    """Every call is a model of one node in a session of its own, kept for the next of the same shapes."""

    def __init__(self) -> None:
        super().__init__(self._in_session)
        self._threads = 1

    def declare(self) -> Declaration:
        """Version, dtypes, and the running variance of ONNX, which is the biased one."""
        runtime = _arrays.framework("onnxruntime", "onnxruntime")
        _arrays.framework("onnx", "npreparam[onnx]")
        return Declaration("ONNX Runtime", runtime.__version__, ("float32", "float64", "float16"), UNSUPPORTED, running_variance="biased",
                           conventions={"infinity_on_padding": "either"})

    def set_threads(self, count: int) -> None:
        """How many threads an operator may use."""
        self._threads = count

    def _in_session(self, model: bytes, inputs: dict[str, Array]) -> list[Array]:
        return _session(model, self._threads).run(None, inputs)


@functools.lru_cache(maxsize=64)
def _session(model: bytes, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if type(error).__name__ == "NotImplemented":
            raise _arrays.Unsupported(f"ONNX Runtime: {error}") from None
        raise


cpu = OnnxRuntime()


def __getattr__(name: str) -> Any:
    """The module itself offers what `cpu` does."""
    return getattr(cpu, name)
