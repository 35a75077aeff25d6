"""The initializers of an ONNX graph (extra `onnx`)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from npreparam._errors import FormatError
from npreparam.checkpoints._checkpoint import Checkpoint, PassedOver
from npreparam.checkpoints._dtypes import Array


def package() -> ModuleType:
    """The onnx package. Raises ImportError, which names the extra."""
    try:
        import onnx
    except ImportError:
        raise ImportError("ONNX files need the onnx package: pip install 'npreparam[onnx]'") from None
    return onnx


def parse(content: memoryview) -> Any:
    """The ModelProto of a file's bytes."""
    onnx = package()
    from google.protobuf.message import DecodeError
    try:
        model = onnx.ModelProto.FromString(bytes(content))
    except (DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FormatError(f"is no ONNX model: {str(error)[:100]}") from None
    if not model.HasField("graph") or not model.ir_version or not model.opset_import:
        raise FormatError("is no ONNX model, or a truncated one: it has no graph, version or operator set")
    return model


def array_of(tensor: Any) -> Array:
    """The array that a TensorProto holds itself."""
    try:
        return package().numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, AttributeError, MemoryError) as error:
        raise FormatError(f"initializer {tensor.name[:80]!r} is not usable: {str(error)[:100]}") from None


def read(content: memoryview) -> Checkpoint:
    """Every dense initializer that the file itself holds; external data and sparse ones are passed over.

    Source: ONNX, onnx.proto, messages ModelProto, GraphProto, TensorProto.
    """
    onnx = package()
    model = parse(content)
    arrays, passed = {}, [PassedOver(t.values.name, "a sparse initializer") for t in model.graph.sparse_initializer]
    for tensor in model.graph.initializer:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            passed.append(PassedOver(tensor.name, "its data lie in another file"))
            continue
        if tensor.name in arrays:
            raise FormatError(f"has two initializers named {tensor.name[:80]!r}")
        array = array_of(tensor)
        if array.dtype.kind in "OSU" or array.dtype.names:
            passed.append(PassedOver(tensor.name, f"an array of {array.dtype}"))
        else:
            arrays[tensor.name] = array
    metadata = {entry.key: entry.value for entry in model.metadata_props} | {"ir_version": model.ir_version, "producer_name": model.producer_name}
    metadata |= {f"opset.{entry.domain or 'ai.onnx'}": entry.version for entry in model.opset_import}
    return Checkpoint(arrays, "ONNX", metadata, tuple(passed))
