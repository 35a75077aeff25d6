"""The register tiles in doubled precision: every sum is an unevaluated pair s + c of floats (Ogita, Rump and Oishi, SISC 26(6), 2005).

For each term, with every operation rounded once:

    p = w*x               e = fma(w, x, -p)                          p + e = w*x exactly (TwoProduct)
    z = s + p             b = z - s      t = (s - (z - b)) + (p - b)     z + t = s + p exactly (TwoSum)
    s = z                 c = c + (t + e)

begun from s = `start[i]`, c = 0. Then |sum - (s + c)| <= gamma_n^2 * sum|w||x| for n terms, barring underflow of the products; NaN or
infinite where an operation overflows. The tiles are laid out as in `_tile`; a result's c is stored `low` elements after its s.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

from npreparam.kernels import _cpu
from npreparam.kernels._fma import fma
from npreparam.kernels._tile import INT, SEAM, Emitter

ROWS, NARROW_ROWS = _cpu.ROWS // 2, _cpu.NARROW_ROWS // 2  # two accumulators for each row


class PairEmitter(Emitter):
    """Emits sums of products in doubled precision."""

    def add_product(self, a: ir.Value, b: ir.Value, s: ir.Value, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The pair (s, c) with a*b added."""
        build = self.builder
        p = build.fmul(a, b)
        e = self.fma(a, b, build.fneg(p))
        z = build.fadd(s, p)
        back = build.fsub(z, s)
        t = build.fadd(build.fsub(s, build.fsub(z, back)), build.fsub(p, back))
        return z, build.fadd(c, build.fadd(t, e))

    def zero(self) -> ir.Value:
        return ir.Constant(self.vector, [0.0] * self.lanes)


def _make_pair_tile(rows: int, vectors: int) -> Any:
    def pair_tile(typingctx, w, w0, step, x, x0, seam, off, off0, taps, start, start0, out, out0, ldo, low):  # type: ignore[no-untyped-def]
        """out[i, j], out[low + (i, j)] = the pair of start[i] + sum over k of w[k*step + i] * x[off[k] + j], over the end of a row."""
        signature = types.void(w, types.intp, types.intp, x, types.intp, SEAM, off, types.intp, types.intp, start, types.intp, out, types.intp,
                               types.intp, types.intp)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind = signature.args
            emit = PairEmitter(context, builder, kind[3])
            weights, pixels, table, begin, result = (emit.pointer(kind[i], args[i], args[i + 1]) for i in (0, 3, 6, 9, 11))
            step, taps, ldo, low = args[2], args[8], args[13], args[14]
            begins = [emit.splat(builder.load(emit.at(begin, i))) for i in range(rows)]

            def total(load):  # type: ignore[no-untyped-def]
                def body(k, sums):  # type: ignore[no-untyped-def]
                    here = emit.at(pixels, builder.load(emit.at(table, k)))
                    xs = [load(emit.at(here, j * emit.lanes)) for j in range(vectors)]
                    column = emit.at(weights, builder.mul(k, step))
                    out = []
                    for i in range(rows):
                        weight = emit.splat(builder.load(emit.at(column, i)))
                        for j in range(vectors):
                            at = 2 * (i * vectors + j)
                            out += emit.add_product(weight, xs[j], sums[at], sums[at + 1])
                    return out

                return emit.loop(taps, [value for b in begins for _ in range(vectors) for value in (b, emit.zero())], body)

            sums = total(emit.load) if vectors > 1 else emit.over_row_end(cgutils.unpack_tuple(builder, args[5]), total)
            for i in range(rows):
                row = emit.at(result, builder.mul(ldo, INT(i)))
                for j in range(vectors):
                    emit.store(sums[2 * (i * vectors + j)], row, j)
                    emit.store(sums[2 * (i * vectors + j) + 1], emit.at(row, low), j)
            return context.get_dummy_value()

        return signature, codegen

    return pair_tile


def _make_pair_outer_tile(rows: int) -> Any:
    def pair_outer_tile(typingctx, gy, g0, x, x0, off, off0, places, first, count, sums, s0, low):  # type: ignore[no-untyped-def]
        """The pairs sums[i, :], sums[low + (i, :)] += sum over p of x[places[first + p] + off[i]] * gy[p, :]."""
        signature = types.void(gy, types.intp, x, types.intp, off, types.intp, places, types.intp, types.intp, sums, types.intp, types.intp)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            kind = signature.args
            emit = PairEmitter(context, builder, kind[2])
            cotangents, pixels, begin, table, totals = (emit.pointer(kind[i], args[i], args[i + 1]) for i in (0, 2, 4, 6, 9))
            offsets = [builder.load(emit.at(begin, i)) for i in range(rows)]
            places = [place for i in range(rows) for place in (emit.at(totals, i * emit.lanes), emit.at(emit.at(totals, args[11]), i * emit.lanes))]

            def body(p, values):  # type: ignore[no-untyped-def]
                here = emit.at(pixels, builder.load(emit.at(table, p)))
                g = emit.load(emit.at(cotangents, builder.mul(p, INT(emit.lanes))))
                out = []
                for i, offset in enumerate(offsets):
                    out += emit.add_product(emit.splat(builder.load(emit.at(here, offset))), g, values[2 * i], values[2 * i + 1])
                return out

            for place, value in zip(places, emit.loop(args[8], [emit.load(place) for place in places], body), strict=True):
                emit.store(value, place)
            return context.get_dummy_value()

        return signature, codegen

    return pair_outer_tile


def add_product_twin(a: Any, b: Any, s: Any, c: Any) -> tuple[Any, Any]:
    """`PairEmitter.add_product` in plain Python."""
    p = a * b
    e = fma(a, b, -p)
    z = s + p
    back = z - s
    t = (s - (z - back)) + (p - back)
    return z, c + (t + e)


def _make_pair_twin(rows: int, vectors: int) -> Any:
    def pair_tile(w, w0, step, x, x0, seam, off, off0, taps, start, start0, out, out0, ldo, low):  # type: ignore[no-untyped-def]
        for i in range(rows):
            for j in range(vectors * _cpu.VECTOR_BYTES // x.itemsize):
                s, c, pixel = start[start0 + i], x.dtype.type(0), x0 + j + (seam[1] if j >= seam[0] else 0)
                for k in range(taps):
                    s, c = add_product_twin(w[w0 + k * step + i], x[pixel + off[off0 + k]], s, c)
                out[out0 + i * ldo + j], out[out0 + i * ldo + j + low] = s, c

    return pair_tile


def _pair_outer_twin(gy, g0, x, x0, off, off0, places, first, count, sums, s0, low):  # type: ignore[no-untyped-def]
    lanes = _cpu.VECTOR_BYTES // x.itemsize
    for i in range(ROWS):
        for at in range(s0 + i * lanes, s0 + (i + 1) * lanes):
            for p in range(count):
                value = x[x0 + places[first + p] + off[off0 + i]]
                sums[at], sums[at + low] = add_product_twin(value, gy[g0 + p * lanes + at - s0 - i * lanes], sums[at], sums[at + low])


if config.DISABLE_JIT:
    pair_tile, single_pair_tile = _make_pair_twin(ROWS, 1), _make_pair_twin(1, _cpu.SINGLE_VECTORS)
    narrow_pair_tile = _make_pair_twin(NARROW_ROWS, _cpu.NARROW_VECTORS)
    pair_outer_tile = _pair_outer_twin
else:
    pair_tile, single_pair_tile = intrinsic(_make_pair_tile(ROWS, 1)), intrinsic(_make_pair_tile(1, _cpu.SINGLE_VECTORS))
    narrow_pair_tile = intrinsic(_make_pair_tile(NARROW_ROWS, _cpu.NARROW_VECTORS))
    pair_outer_tile = intrinsic(_make_pair_outer_tile(ROWS))
