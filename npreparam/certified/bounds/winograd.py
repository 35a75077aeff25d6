"""Winograd convolution F(m x m, 3 x 3): its matrices as rationals, and its bound as the same algorithm on absolute values.

A tile of a = m + 2 inputs gives m outputs per axis:

    Y = A^T [ sum over channels of (G g G^T) * (B^T d B) ] A

The matrices are those of Cook and Toom for the points 0, 1, -1, 2, -2, 1/2, -1/2 (as many as needed) and infinity. Published tables
scale the rows of (A, G, B) by factors whose product is 1; |A^T| ((|G||g||G^T|) * (|B^T||d||B|)) |A| does not change with that.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam._shapes import Window
from npreparam.certified.bounds._majorant import Floats, up
from npreparam.certified.bounds.profile import Profile

KERNEL = 3
POINTS = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))
MARGIN = 8  # a half-transformed value is at most so many times a transformed one: every column of A^T, B^T and G has an entry above 1/8


def _times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """Coefficients, the constant first, of a polynomial times (x - root)."""
    return [above - root * here for above, here in zip([Fraction(0), *polynomial], [*polynomial, Fraction(0)], strict=True)]


@functools.cache
def transforms(m: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(A^T, G, B^T) of F(m, 3) as arrays of Fractions: (m, a), (a, 3) and (a, a) with a = m + 2.

    With the points p_j and f_j = product of (p_j - p_k), k other than j: A^T[i, j] = p_j^i; G[j, i] = p_j^i / f_j; row j of B^T holds the
    coefficients of the product of (x - p_k), k other than j. The last row belongs to infinity: (.., 0, 1), and all (x - p_k).

    Source: Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, arXiv 1509.09308; Barabasz et al., TOMS 46(4), 2020.

    >>> at, g, bt = transforms(2)
    >>> (at @ ((g @ [1, 2, 3]) * (bt @ [1, 1, 1, 2]))).tolist() == [6, 9]    # 1+2+3, and 1+2+6
    True
    """
    points = POINTS[:m + 1]
    zero, one = Fraction(0), Fraction(1)
    at = [[p**i for p in points] + [one if i == m - 1 else zero] for i in range(m)]
    g, bt, whole = [], [], [one]
    for p in points:
        rest, scale = [one], one
        for other in points:
            if other != p:
                rest, scale = _times(rest, other), scale * (p - other)
        g.append([p**i / scale for i in range(KERNEL)])
        bt.append([*rest, zero])
        whole = _times(whole, p)
    return np.array(at, object), np.array([*g, [zero, zero, one]], object), np.array([*bt, whole], object)


def tiles(x: Floats, window: Window, m: int) -> Floats:
    """The (a, a) input tiles of m x m outputs, the first at the image's corner: (N, C, tile rows, tile columns, a, a)."""
    (height, width), ((top, _), (left, _)) = window.output_size(x.shape[2:]), window.padding
    rows, columns = -(-height // m), -(-width // m)
    padded = np.zeros((*x.shape[:2], rows * m + KERNEL - 1, columns * m + KERNEL - 1))
    inside = x[:, :, :padded.shape[2] - top, :padded.shape[3] - left]
    padded[:, :, top:top + inside.shape[2], left:left + inside.shape[3]] = inside
    a = m + KERNEL - 1
    return np.lib.stride_tricks.sliding_window_view(padded, (a, a), axis=(2, 3))[:, :, ::m, ::m]


def both_sides(left: Floats, values: Floats) -> Floats:
    """left @ values @ left.T over the last two axes."""
    return left @ values @ left.T


def winograd_bound(x: Floats, w: Floats, window: Window, profile: Profile) -> tuple[Floats, Floats]:
    """(error bound, largest intermediate) of the sum over taps, for the magnitudes of the operands.

    |y^ - y| <= theta*(Y + D) + D,  Y = |A^T| (sum over channels of U*V) |A|,  U = |G||g||G^T|,  V = |B^T||d||B|,  theta = (1-u)^-k - 1

    A product of a matrix with exact entries and r columns passes r roundings (ASNA, eq. 3.5), one more where the entries are themselves
    rounded (1/6, ...); the matrices act from both sides: 2(3 + 1) for G, 2(a + 1) for B, 2(a + 1) for A. With 1 for the product and C - 1 in
    the sum of C channels, k = C + 4a + 12. D is what underflow adds, carried through the same formula: an element of U, V or Y suffers
    2r*tiny on each side, that of the first enlarged by the second's row sum; a product 2*tiny with its addition.

    Tiles begin at the corner of the output; another grid has another bound.

    Source: ASNA, section 3.5 and Lemma 3.1; Barabasz, Anderson, Soodhalter and Gregg, TOMS 46(4), 2020, for the bound in norms.
    """
    m = int(profile.algorithm.split("_")[1])
    if window.kernel != (KERNEL, KERNEL) or window.stride != (1, 1) or window.dilation != (1, 1):
        raise ArgumentError(f"`kernel` (={window.kernel}), `stride` (={window.stride}) and `dilation` (={window.dilation}) must be 3, 1 and 1 "
                            f"for the profile's algorithm {profile.algorithm!r}; use a direct profile")
    at, g, bt = (np.abs(matrix).astype(np.float64) for matrix in transforms(m))
    inputs, a, groups = w.shape[1], m + KERNEL - 1, window.groups
    operations = inputs + 4 * a + 12
    tiny = [2 * width * (1 + matrix.sum(1).max()) * profile.tiny for matrix, width in ((g, KERNEL), (bt, a), (at, a))]
    u, v = up(both_sides(g, w), operations), up(both_sides(bt, tiles(x, window, m)), operations)
    u_split = u.reshape(groups, w.shape[0] // groups, *u.shape[1:])
    v_split = v.reshape(v.shape[0], groups, inputs, *v.shape[2:])
    summed = up(_over_channels(u_split, v_split), operations)
    lost = up(tiny[0] * (v_split.sum(2) + inputs * tiny[1]))[:, :, None] + up(tiny[1] * u_split.sum(2))[:, :, None, None]
    lost = up(lost, operations) + 2 * inputs * profile.tiny
    d = up(both_sides(at, lost), operations) + tiny[2]
    y = up(both_sides(at, summed), operations)
    error = profile.compound(profile.roundings(inputs) + 4 * a + 12) * (y + d) + d
    reach = np.maximum(summed.max((-1, -2)), y.max((-1, -2)))
    reach = np.maximum(reach, v_split.max((2, -1, -2))[:, :, None])
    partial = MARGIN * np.maximum(reach, u_split.max((2, -1, -2))[:, :, None, None])
    return _stitch(error, window, x.shape[2:]), _stitch(np.broadcast_to(partial[..., None, None], error.shape), window, x.shape[2:])


def _over_channels(u: Floats, v: Floats) -> Floats:
    """Sums of u[g, o, c, i, j]*v[n, g, c, r, s, i, j] over c: (n, g, o, r, s, i, j), as a product of matrices for every i and j."""
    n, groups, channels, rows, columns, a, _ = v.shape
    right = v.transpose(1, 5, 6, 2, 0, 3, 4).reshape(groups, a, a, channels, n * rows * columns)
    product = u.transpose(0, 3, 4, 1, 2) @ right
    return product.reshape(groups, a, a, u.shape[1], n, rows, columns).transpose(4, 0, 3, 5, 6, 1, 2)


def _stitch(parts: Floats, window: Window, size: Any) -> Floats:
    """(N, groups, O/groups, tile rows, tile columns, m, m) as the image (N, O, height, width) they cut up."""
    height, width = window.output_size(size)
    n, groups, outputs, rows, columns, m, _ = parts.shape
    image = parts.swapaxes(4, 5).reshape(n, groups * outputs, rows * m, columns * m)
    return image[:, :, :height, :width]
