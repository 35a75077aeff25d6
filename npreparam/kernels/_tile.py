"""The micro-kernel: one register tile of an implicit im2col product, written as LLVM vector code.

    out[i, j] = max(floor, start[i] + sum_k w[k, i] * x[off[k] + j + gap*e(j)])        i < rows, j < vectors * lanes

Every element is one chain of fused multiply-adds over k = 0, 1, ..., in that order, begun from `start[i]` (the bias, or 0).
`floor` is 0 for a fused ReLU and -inf for none; a NaN passes through. With Numba's JIT disabled the Python twin below runs instead.

A tile of one vector may run over the end of an image row, behind which lie `gap` elements that are no pixels: its *seam* is (pixels before the
end, gap), and e(j) = 1 for the pixels behind it, else 0.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from npreparam.kernels import _cpu
from npreparam.kernels._fma import fma

INT = ir.IntType(64)
SEAM = types.UniTuple(types.intp, 2)
NO_SEAM = (2**31, 0)


class Emitter:
    """Emits vector code over the arrays of one intrinsic call: element pointers, 64-byte loads and stores, splats and FMAs."""

    def __init__(self, context: Any, builder: ir.IRBuilder, array: types.Array, vector_bytes: int = _cpu.VECTOR_BYTES) -> None:
        self.context, self.builder = context, builder
        self.scalar = context.get_data_type(array.dtype)
        self.size = array.dtype.bitwidth // 8
        self.lanes = vector_bytes // self.size
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.first_lane = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)

    def pointer(self, array_type: types.Array, array: ir.Value, index: ir.Value) -> ir.Value:
        data = self.context.make_array(array_type)(self.context, self.builder, value=array).data
        return self.builder.gep(data, [index])

    def at(self, pointer: ir.Value, index: ir.Value | int) -> ir.Value:
        return self.builder.gep(pointer, [INT(index) if isinstance(index, int) else index])

    def load(self, pointer: ir.Value, vector: int = 0) -> ir.Value:
        place = self.builder.bitcast(self.at(pointer, vector * self.lanes), self.vector.as_pointer())
        return self.builder.load(place, align=self.size)

    def store(self, value: ir.Value, pointer: ir.Value, vector: int = 0) -> None:
        place = self.builder.bitcast(self.at(pointer, vector * self.lanes), self.vector.as_pointer())
        self.builder.store(value, place, align=self.size)

    def splat(self, value: ir.Value) -> ir.Value:
        undefined = ir.Constant(self.vector, ir.Undefined)
        one = self.builder.insert_element(undefined, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, undefined, self.first_lane)

    def fma(self, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        name, signature = f"llvm.fma.v{self.lanes}f{8 * self.size}", ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name), [a, b, c])

    def choose(self, condition: ir.Value, one: Any, other: Any) -> list[ir.Value]:
        """The values of ``one()`` where the condition holds, else those of ``other()``."""
        found = []
        with self.builder.if_else(condition) as branches:
            for branch, values in zip(branches, (one, other), strict=True):
                with branch:
                    found.append((values(), self.builder.block))
        merged = []
        for pair in zip(*(values for values, _ in found), strict=True):
            merged.append(self.builder.phi(pair[0].type))
            for value, (_, block) in zip(pair, found, strict=True):
                merged[-1].add_incoming(value, block)
        return merged

    def over_row_end(self, seam: list[ir.Value], sums: Any) -> list[ir.Value]:
        """``sums(load)``, where ``load(pointer)`` is a vector of pixels that lie in one row or in two."""
        builder, (first, gap) = self.builder, seam
        lane = ir.Constant(ir.VectorType(INT, self.lanes), list(range(self.lanes)))
        undefined = ir.Constant(lane.type, ir.Undefined)
        begin = builder.insert_element(undefined, first, ir.IntType(32)(0))
        beyond = builder.icmp_signed(">=", lane, builder.shuffle_vector(begin, undefined, self.first_lane))

        def two_rows(here: ir.Value) -> ir.Value:
            return builder.select(beyond, self.load(self.at(here, gap)), self.load(here))

        return self.choose(builder.icmp_signed(">=", first, INT(self.lanes)), lambda: sums(self.load), lambda: sums(two_rows))

    def loop(self, count: ir.Value, starts: list[ir.Value], body: Any) -> list[ir.Value]:
        """``for k in range(count): values = body(k, values)``, the values kept in registers; `starts` where count is 0."""
        builder, before = self.builder, self.builder.block
        head, inside, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        k = builder.phi(INT)
        values = [builder.phi(start.type) for start in starts]
        builder.cbranch(builder.icmp_signed("<", k, count), inside, done)
        builder.position_at_end(inside)
        following = [builder.add(k, INT(1)), *body(k, values)]
        last = builder.block
        builder.branch(head)
        for phi, start, new in zip([k, *values], [INT(0), *starts], following, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(new, last)
        builder.position_at_end(done)
        return values


def _make_tile(rows: int, vectors: int, packed: bool = True, vector_bytes: int = _cpu.VECTOR_BYTES) -> Any:
    """A tile whose weights are packed [k][rows], or else lie in the caller's array: row i at min(i, live - 1)*ldw, taps side by side."""
    def tile(typingctx, w, w0, ldw, live, x, x0, seam, off, off0, taps, start, start0, floor, out, out0, ldo):  # type: ignore[no-untyped-def]
        signature = types.void(w, types.intp, types.intp, types.intp, x, types.intp, SEAM, off, types.intp, types.intp, start, types.intp,
                               x.dtype, out, types.intp, types.intp)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind = signature.args
            emit = Emitter(context, builder, kind[4], vector_bytes)
            weights, pixels, table, begin, result = (emit.pointer(kind[i], args[i], args[i + 1]) for i in (0, 4, 7, 10, 13))
            (ldw, live), taps, floor, ldo = args[2:4], args[9], args[12], args[15]
            begins = [emit.splat(builder.load(emit.at(begin, i))) for i in range(rows)]
            last = builder.sub(live, INT(1))
            lines = [builder.select(builder.icmp_signed("<", INT(i), live), INT(i), last) for i in range(0 if packed else rows)]
            lines = [emit.at(weights, builder.mul(ldw, line)) for line in lines]

            def total(load):  # type: ignore[no-untyped-def]
                def body(k, sums):  # type: ignore[no-untyped-def]
                    here = emit.at(pixels, builder.load(emit.at(table, k)))
                    xs = [load(emit.at(here, j * emit.lanes)) for j in range(vectors)]
                    column = emit.at(weights, builder.mul(k, INT(rows)))
                    out = []
                    for i in range(rows):
                        weight = emit.splat(builder.load(emit.at(column, i) if packed else emit.at(lines[i], k)))
                        out += [emit.fma(weight, xs[j], sums[i * vectors + j]) for j in range(vectors)]
                    return out

                return emit.loop(taps, [b for b in begins for _ in range(vectors)], body)

            sums = total(emit.load) if vectors > 1 else emit.over_row_end(cgutils.unpack_tuple(builder, args[6]), total)
            floors = emit.splat(floor)
            for i in range(rows):
                row = emit.at(result, builder.mul(ldo, INT(i)))
                for j in range(vectors):
                    value = sums[i * vectors + j]
                    emit.store(builder.select(builder.fcmp_unordered(">", value, floors), value, floors), row, j)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _make_twin(rows: int, vectors: int, packed: bool = True, vector_bytes: int = _cpu.VECTOR_BYTES) -> Any:
    """The tile as plain loops, for NUMBA_DISABLE_JIT=1 and for reading."""
    def tile(w, w0, ldw, live, x, x0, seam, off, off0, taps, start, start0, floor, out, out0, ldo):  # type: ignore[no-untyped-def]
        for i in range(rows):
            first, step = (w0 + i, rows) if packed else (w0 + min(i, live - 1) * ldw, 1)
            for j in range(vectors * vector_bytes // x.itemsize):
                total, pixel = start[start0 + i], x0 + j + (seam[1] if j >= seam[0] else 0)
                for k in range(taps):
                    total = fma(w[first + k * step], x[pixel + off[off0 + k]], total)
                out[out0 + i * ldo + j] = floor if total <= floor else total

    return tile


def _make_outer_tile(rows: int) -> Any:
    def outer_tile(typingctx, gy, g0, x, x0, off, off0, places, first, count, sums, s0):  # type: ignore[no-untyped-def]
        """sums[i, :] += (sum over p of x[places[first + p] + off[i]] * gy[p, :]), one vector of output channels for each of `rows` taps."""
        signature = types.void(gy, types.intp, x, types.intp, off, types.intp, places, types.intp, types.intp, sums, types.intp)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind = signature.args
            emit = Emitter(context, builder, kind[2])
            cotangents, pixels, begin, table, totals = (emit.pointer(kind[i], args[i], args[i + 1]) for i in (0, 2, 4, 6, 9))
            offsets = [builder.load(emit.at(begin, i)) for i in range(rows)]

            def body(p, values):  # type: ignore[no-untyped-def]
                here = emit.at(pixels, builder.load(emit.at(table, p)))
                g = emit.load(emit.at(cotangents, builder.mul(p, INT(emit.lanes))))
                return [emit.fma(emit.splat(builder.load(emit.at(here, o))), g, v) for o, v in zip(offsets, values, strict=True)]

            zero = ir.Constant(emit.vector, [0.0] * emit.lanes)
            for i, value in enumerate(emit.loop(args[8], [zero] * rows, body)):
                emit.store(builder.fadd(emit.load(totals, i), value), totals, i)
            return context.get_dummy_value()

        return signature, codegen

    return outer_tile


def _make_outer_twin(rows: int) -> Any:
    def outer_tile(gy, g0, x, x0, off, off0, places, first, count, sums, s0):  # type: ignore[no-untyped-def]
        lanes = _cpu.VECTOR_BYTES // x.itemsize
        for i in range(rows):
            for lane in range(lanes):
                total = x.dtype.type(0)
                for p in range(count):
                    total = fma(x[x0 + places[first + p] + off[off0 + i]], gy[g0 + p * lanes + lane], total)
                sums[s0 + i * lanes + lane] += total

    return outer_tile


def _copy_half(typingctx, source, at, step, target, to):  # type: ignore[no-untyped-def]
    """Copy half a vector of elements `step` = 1 or 2 apart, reading nothing beyond the last of them."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, signature.args[0], _cpu.VECTOR_BYTES // 2)
        n = emit.lanes
        here, there = emit.pointer(signature.args[0], args[0], args[1]), emit.pointer(signature.args[3], args[3], args[4])
        with builder.if_else(builder.icmp_signed("==", args[2], INT(1))) as (near, apart):
            with near:
                emit.store(emit.load(here), there)
            with apart:
                low, high = emit.load(here), emit.load(emit.at(here, n - 1))  # element 2i is high[2i - (n-1)] from the middle on
                picks = [2 * i if 2 * i < n else n + 2 * i - (n - 1) for i in range(n)]
                emit.store(builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(ir.IntType(32), n), picks)), there)
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, target, types.intp), codegen


def _split_vector(typingctx, source, at, target, even, odd):  # type: ignore[no-untyped-def]
    """A vector of elements 0, 2, 4, ... from source[at] on to target[even], and one of elements 1, 3, 5, ... to target[odd]."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, signature.args[0])
        n, here = emit.lanes, emit.pointer(signature.args[0], args[0], args[1])
        halves = emit.load(here), emit.load(here, 1)
        for first, place in enumerate(args[3:]):
            picks = ir.Constant(ir.VectorType(ir.IntType(32), n), [2 * i + first for i in range(n)])
            emit.store(builder.shuffle_vector(*halves, picks), emit.pointer(signature.args[2], args[2], place))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), codegen


def _clear_half(typingctx, target, to):  # type: ignore[no-untyped-def]
    """Half a vector of zeros from target[to] on."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        emit = Emitter(context, builder, signature.args[0], _cpu.VECTOR_BYTES // 2)
        emit.store(ir.Constant(emit.vector, [0.0] * emit.lanes), emit.pointer(signature.args[0], *args))
        return context.get_dummy_value()

    return types.void(target, types.intp), codegen


def _fma(typingctx, a, b, c):  # type: ignore[no-untyped-def]
    """a*b + c with one rounding."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fma(*args)

    return c(a, b, c), codegen


def _half_lanes(typingctx, array):  # type: ignore[no-untyped-def]
    """Elements in half a vector of an array's dtype, a constant to the compiler."""
    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return INT(_cpu.VECTOR_BYTES // 2 // (signature.args[0].dtype.bitwidth // 8))

    return types.intp(array), codegen


def _half_lanes_twin(array):  # type: ignore[no-untyped-def]
    return _cpu.VECTOR_BYTES // 2 // array.itemsize


def _copy_half_twin(source, at, step, target, to):  # type: ignore[no-untyped-def]
    count = _half_lanes_twin(target)
    target[to : to + count] = source[at : at + (count - 1) * step + 1 : step]


def _split_vector_twin(source, at, target, even, odd):  # type: ignore[no-untyped-def]
    count = 2 * _half_lanes_twin(target)
    target[even : even + count], target[odd : odd + count] = source[at : at + 2 * count : 2], source[at + 1 : at + 2 * count : 2]


def _clear_half_twin(target, to):  # type: ignore[no-untyped-def]
    target[to : to + _half_lanes_twin(target)] = 0


if config.DISABLE_JIT:
    tile, single_tile, unpacked_tile = _make_twin(_cpu.ROWS, 1), _make_twin(1, _cpu.SINGLE_VECTORS), _make_twin(_cpu.ROWS, 1, False)
    narrow_tile = _make_twin(_cpu.NARROW_ROWS, _cpu.NARROW_VECTORS)
    half_tile, unpacked_half_tile = (_make_twin(_cpu.ROWS, 1, packed, _cpu.VECTOR_BYTES // 2) for packed in (True, False))
    panel_tile, unpacked_panel_tile = (_make_twin(_cpu.ROWS, _cpu.PANEL_VECTORS, packed) for packed in (True, False))
    outer_tile = _make_outer_twin(_cpu.ROWS)
    copy_half, clear_half, split_vector, half_lanes = _copy_half_twin, _clear_half_twin, _split_vector_twin, _half_lanes_twin
    scalar_fma = fma
else:
    tile, single_tile = intrinsic(_make_tile(_cpu.ROWS, 1)), intrinsic(_make_tile(1, _cpu.SINGLE_VECTORS))
    unpacked_tile = intrinsic(_make_tile(_cpu.ROWS, 1, False))
    narrow_tile = intrinsic(_make_tile(_cpu.NARROW_ROWS, _cpu.NARROW_VECTORS))
    half_tile, unpacked_half_tile = (intrinsic(_make_tile(_cpu.ROWS, 1, packed, _cpu.VECTOR_BYTES // 2)) for packed in (True, False))
    panel_tile, unpacked_panel_tile = (intrinsic(_make_tile(_cpu.ROWS, _cpu.PANEL_VECTORS, packed)) for packed in (True, False))
    outer_tile = intrinsic(_make_outer_tile(_cpu.ROWS))
    copy_half, clear_half, split_vector, half_lanes = (intrinsic(f) for f in (_copy_half, _clear_half, _split_vector, _half_lanes))
    scalar_fma = intrinsic(_fma)
