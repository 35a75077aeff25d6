"""Convolutions by transforms in float32, written from the published tables and from the definition of the Fourier transform."""

from fractions import Fraction

import numpy as np


def rows(text):
    """A matrix of rationals: numbers apart by blanks, rows by semicolons."""
    return np.array([[Fraction(entry) for entry in row.split()] for row in text.split(";")], object)


# Lavin and Gray, arXiv 1509.09308, sections 4.1 to 4.3; F(6, 3) with the same points and 1/2, -1/2.
LAVIN = {
    2: (rows("1 1 1 0; 0 1 -1 -1"), rows("1 0 0; 1/2 1/2 1/2; 1/2 -1/2 1/2; 0 0 1"),
        rows("1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1")),
    4: (rows("1 1 1 1 1 0; 0 1 -1 2 -2 0; 0 1 1 4 4 0; 0 1 -1 8 -8 1"),
        rows("1/4 0 0; -1/6 -1/6 -1/6; -1/6 1/6 -1/6; 1/24 1/12 1/6; 1/24 -1/12 1/6; 0 0 1"),
        rows("4 0 -5 0 1 0; 0 -4 -4 1 1 0; 0 4 -4 -1 1 0; 0 -2 -1 2 1 0; 0 2 -1 -2 1 0; 0 4 0 -5 0 1")),
    6: (rows("1 1 1 1 1 1 1 0; 0 1 -1 2 -2 1/2 -1/2 0; 0 1 1 4 4 1/4 1/4 0; 0 1 -1 8 -8 1/8 -1/8 0; "
             "0 1 1 16 16 1/16 1/16 0; 0 1 -1 32 -32 1/32 -1/32 1"),
        rows("1 0 0; -2/9 -2/9 -2/9; -2/9 2/9 -2/9; 1/90 1/45 2/45; 1/90 -1/45 2/45; 32/45 16/45 8/45; 32/45 -16/45 8/45; 0 0 1"),
        rows("1 0 -21/4 0 21/4 0 -1 0; 0 1 1 -17/4 -17/4 1 1 0; 0 -1 1 17/4 -17/4 -1 1 0; 0 1/2 1/4 -5/2 -5/4 2 1 0; "
             "0 -1/2 1/4 5/2 -5/4 -2 1 0; 0 2 4 -5/2 -5 1/2 1 0; 0 -2 4 5/2 -5 -1/2 1 0; 0 -1 0 21/4 0 -21/4 0 1")),
}


def winograd(x, w, m, padding=0, tables=None, dtype=np.float32):
    """F(m x m, 3 x 3) with every operation in one dtype (object for Fractions), tile by tile."""
    at, g, bt = (matrix.astype(dtype) for matrix in (tables or LAVIN[m]))
    x, w = (np.asarray(v).astype(dtype) for v in (x, w))
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    height, width = x.shape[2] - 2, x.shape[3] - 2
    x = np.pad(x, ((0, 0), (0, 0), (0, -height % m), (0, -width % m)))
    y = np.empty((x.shape[0], w.shape[0], height + -height % m, width + -width % m), dtype)
    transformed = g @ w @ g.T
    for r in range(0, height, m):
        for c in range(0, width, m):
            v = bt @ x[:, :, r:r + m + 2, c:c + m + 2] @ bt.T
            y[:, :, r:r + m, c:c + m] = at @ sum(v[:, None, i] * transformed[None, :, i] for i in range(x.shape[1])) @ at.T
    return y[:, :, :height, :width]


def fft_radix_2(x, sign):
    """The discrete Fourier transform along the last axis, by halving; complex64 throughout."""
    n = x.shape[-1]
    if n == 1:
        return x
    roots = np.exp(sign * 2j * np.pi * np.arange(n // 2) / n).astype(np.complex64)
    even, odd = fft_radix_2(x[..., ::2], sign), roots * fft_radix_2(x[..., 1::2], sign)
    return np.concatenate([even + odd, even - odd], -1)


def fft_own(x, sign):
    return fft_radix_2(fft_radix_2(x.astype(np.complex64), sign).swapaxes(-1, -2), sign).swapaxes(-1, -2)


def fft_conv2d(x, w, padding=0, numpys=True):
    """Correlation by transforms of power-of-two sizes in float32: by `numpy.fft`, which computes in the precision of its input, or our own."""
    x = np.pad(np.asarray(x, np.float32), ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    size = tuple(1 << (n - 1).bit_length() for n in x.shape[2:])
    height, width = (n - k + 1 for n, k in zip(x.shape[2:], w.shape[2:], strict=True))
    padded_x, padded_w = (np.pad(v.astype(np.float32), ((0, 0), (0, 0), *((0, s - n) for s, n in zip(size, v.shape[2:], strict=True))))
                          for v in (x, w))
    forward = np.fft.rfft2 if numpys else lambda v: fft_own(v, -1)
    fx, fw = forward(padded_x), np.conj(forward(padded_w))
    assert fx.dtype == fw.dtype == np.complex64
    product = sum(fx[:, None, i] * fw[None, :, i] for i in range(x.shape[1]))
    y = np.fft.irfft2(product, size) if numpys else fft_own(product, 1).real / np.float32(size[0] * size[1])
    assert y.dtype == np.float32
    return y[:, :, :height, :width]
