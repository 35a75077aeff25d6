"""Small ONNX graphs whose numbers are multiples of 1/4, so that float64 rounds nothing; and what runs them."""

import numpy as np
import pytest

from npreparam.checkpoints import fuse_graph, verify_graph

VARIANCE, EPS = 0.75, 0.25  # the root of their sum is 1


class Builder:
    """A graph that grows node by node; every method returns the name of what it makes."""

    def __init__(self, channels=4, rank=2, dtype=np.float64, seed=0, opset=17):
        import onnx
        self.onnx, self.rank, self.dtype, self.opset = onnx, rank, np.dtype(dtype), opset
        self.rng, self.nodes, self.constants, self.channels = np.random.default_rng(seed), [], {}, {"x": channels}

    def numbers(self, *shape):
        return (self.rng.integers(-8, 9, shape) / 4).astype(self.dtype)

    def const(self, value):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def node(self, op, *inputs, channels=None, outputs=1, **attributes):
        names = [f"{op.lower()}{len(self.nodes)}" + "abcdefgh"[i] * (outputs > 1) for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(op, list(inputs), names, name=f"n{len(self.nodes)}", **attributes))
        self.channels |= dict.fromkeys(names, self.channels.get(next(iter(inputs), "")) if channels is None else channels)
        return names[0] if outputs == 1 else names

    def conv(self, x, outputs=None, kernel=1, pads=0, bias=True, groups=1, **attributes):
        inputs = self.channels[x]
        outputs = outputs or inputs
        more = [self.const(self.numbers(outputs))] if bias else []
        if "auto_pad" not in attributes:
            attributes["pads"] = [pads] * 2 * self.rank if isinstance(pads, int) else pads
        kernel = (kernel,) * self.rank if isinstance(kernel, int) else kernel
        weight = self.const(self.numbers(outputs, inputs // groups, *kernel))
        return self.node("Conv", x, weight, *more, channels=outputs, group=groups, **attributes)

    def conv_transpose(self, x, outputs, kernel, groups=1, bias=True, **attributes):
        inputs = self.channels[x]
        more = [self.const(self.numbers(outputs))] if bias else []
        weight = self.const(self.numbers(inputs, outputs // groups, *(kernel,) * self.rank))
        return self.node("ConvTranspose", x, weight, *more, channels=outputs, group=groups, **attributes)

    def gemm(self, x, outputs, shift=None, **attributes):
        inputs = self.channels[x]
        weight = self.const(self.numbers(*((outputs, inputs) if attributes.get("transB") else (inputs, outputs))))
        more = [] if shift is None else [self.const(self.numbers(*shift))]
        return self.node("Gemm", x, weight, *more, channels=outputs, **attributes)

    def slice(self, x, start, end, axis=1, step=1):
        channels = len(range(self.channels[x])[start:end:step]) if axis in (1, -1 - self.rank) else None
        if self.opset < 10:
            return self.node("Slice", x, channels=channels, starts=[start], ends=[end], axes=[axis])
        return self.node("Slice", x, *(self.const(np.array([n])) for n in (start, end, axis, step)), channels=channels)

    def norm(self, x, var=VARIANCE, **attributes):
        n = self.channels[x]
        parts = [self.numbers(n), self.numbers(n), self.numbers(n), np.full(n, var, self.dtype)]
        return self.node("BatchNormalization", x, *map(self.const, parts), epsilon=EPS, **attributes)

    def per_channel(self, x):
        return self.const(self.numbers(1, self.channels[x], *(1,) * self.rank))

    def model(self, *outputs, size=None, old=False, metadata=None):
        """The model; its batch and, without `size`, its lengths are open."""
        helper, onnx = self.onnx.helper, self.onnx
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        given = ["n", self.channels["x"], *(size or [f"d{i}" for i in range(self.rank)])]
        inputs = [helper.make_tensor_value_info("x", kind, given)]
        if old:
            inputs += [helper.make_tensor_value_info(name, kind, value.shape) for name, value in self.constants.items()]
        made = [helper.make_tensor_value_info(name, kind, ["n", self.channels[name], *[None] * self.rank]) for name in outputs]
        tensors = [onnx.numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "g", inputs, made, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=3 if old else 8)
        helper.set_model_props(model, metadata or {"author": "somebody"})
        return model

    def images(self, size=9, count=2):
        return self.numbers(count, self.channels["x"], *(size,) * self.rank)


def evaluate(model, x):
    """The outputs by onnx.reference, node by node in NumPy; for transposed convolutions, which it does not know in groups, by ONNX Runtime."""
    if any(node.op_type == "ConvTranspose" for node in model.graph.node):
        return session(model).run(None, {"x": x})
    from onnx.reference import ReferenceEvaluator
    return ReferenceEvaluator(model).run(None, {"x": x})


def session(model):
    """ONNX Runtime on a model as it is, or a skipped test."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level, options.log_severity_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL, 3
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def same_in_runtime(result, model, x):
    """Whether the graph and its fused twin give the same numbers in ONNX Runtime."""
    ours, theirs = (session(each).run(None, {"x": x})[0] for each in (result.model, model))
    return ours.shape == theirs.shape and (ours == theirs).all()


def written(folder, model, name="m.onnx"):
    path = folder / name
    path.write_bytes(model.SerializeToString())
    return path


def fused(tmp_path, builder, *outputs, insist=False, size=None):
    """Both models, after checking that the fused one is valid, agrees bit for bit, and verifies."""
    import onnx
    model = builder.model(*outputs, size=size)
    path = written(tmp_path, model)
    result = fuse_graph(path, insist=insist)
    assert result.held, result.faults
    x = builder.images(*(size or ())[:1])
    for ours, theirs in zip(evaluate(result.model, x), evaluate(model, x), strict=True):
        assert ours.shape == theirs.shape
        assert (ours == theirs).all()
    onnx.checker.check_model(result.model, full_check=True)
    if result.rows:
        result.save(tmp_path / "out.onnx")
        assert verify_graph(path, tmp_path / "out.onnx").faults == []
    assert [v.SerializeToString() for v in (*result.model.graph.input, *result.model.graph.output)] \
        == [v.SerializeToString() for v in (*model.graph.input, *model.graph.output)]
    return result


def operators(model):
    return [node.op_type for node in model.graph.node]


def seeds():
    """Good small models for the fuzzer, which together hold every kind of linear node, by file name."""
    b = Builder(6, dtype=np.float32)
    pooled = b.node("AveragePool", b.conv(b.node("Pad", "x", b.const(np.array([0, 0, 1, 1] * 2)))), kernel_shape=[3, 3], strides=[1, 1])
    left, right = b.node("Split", b.node("Add", pooled, b.norm(b.conv("x", 6, 3, 1))), axis=1, outputs=2)
    joined = b.node("Relu", b.conv(b.node("Concat", right, left, axis=1, channels=6)))
    up = b.norm(b.conv_transpose(joined, 6, 3, 2, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]))
    old = Builder(2, rank=1, dtype=np.float32, opset=9)
    y = old.node("Mul", old.norm(old.conv("x", 4, 3, auto_pad="SAME_UPPER", groups=2)), old.const(np.float32(0.5)))
    rows = Builder(4, rank=0, dtype=np.float32)
    z = rows.norm(rows.gemm(rows.norm("x"), 3, (3,), transB=1, alpha=0.5))
    parts = Builder(4, dtype=np.float32)
    both = parts.node("Add", *(parts.conv(parts.slice("x", first, first + 2), 2) for first in (0, 2)))
    pooled = parts.node("AveragePool", both, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[0, 0, 1, 1])
    models = {"new": b.model(up), "old": old.model(old.node("Sub", y, y), old=True), "rows": rows.model(rows.gemm(z, 4, (1, 4))),
              "parts": parts.model(pooled, size=[9, 9])}
    return {f"{name}.onnx": model.SerializeToString() for name, model in models.items()}


def fused_numbers(path):
    """What the fuzzer looks at: the parameters of the fused regions."""
    return {row.block.output: row.weight for row in fuse_graph(path).rows}
