"""SciPy: `scipy.signal.correlate` by direct sums or by FFT, and the functions of `scipy.special` and `scipy.stats`."""

from __future__ import annotations

from typing import Any

import numpy as np

from npreparam._shapes import Padding, Size2, extent
from npreparam.certified.bounds import Profile
from npreparam.conformance.adapters import _arrays
from npreparam.conformance.adapters._arrays import Array
from npreparam.conformance.target import Declaration


class SciPy:
    """SciPy behind the judge's signatures; `method` is that of scipy.signal.correlate."""

    def __init__(self, method: str = "direct") -> None:
        self.method = method

    def declare(self) -> Declaration:
        """Version and arithmetic: by FFT, the bounds of a transform; scipy.stats computes in float64.

        The zeros between and around make NaN of infinities.
        """
        scipy = _arrays.framework("scipy", "scipy")
        fast = {dtype: Profile(dtype, dtype, output=dtype, algorithm="fft") for dtype in ("float32", "float64")}
        absent = {"normal_log_prob": ("dtype:float32",), "conv2d": ("special values",)}
        return Declaration(f"SciPy {self.method}", scipy.__version__, unsupported=absent, profiles=fast if self.method == "fft" else {})

    def conv2d(self, x: Array, w: Array, b: Array | None = None, stride: Size2 = 1, padding: Padding = 0, dilation: Size2 = 1,
               groups: int = 1) -> Array:
        """scipy.signal.correlate of each image with each kernel: dilation puts zeros between the taps, stride keeps some of the outputs."""
        from scipy.signal import correlate

        window = _arrays.window_of(x.shape, w.shape, stride, padding, dilation, groups)
        images = np.pad(x, _arrays.widths(window))
        kernels = np.zeros((*w.shape[:2], *(extent(k, d) for k, d in zip(window.kernel, window.dilation, strict=True))), w.dtype)
        kernels[:, :, :: window.dilation[0], :: window.dilation[1]] = w
        inputs, outputs = w.shape[1], len(w) // groups
        y = np.empty((len(x), len(w), *window.output_size(x.shape[2:])), x.dtype)
        for n, o in np.ndindex(y.shape[:2]):
            first = o // outputs * inputs
            plane = correlate(images[n, first : first + inputs], kernels[o], mode="valid", method=self.method)[0]
            y[n, o] = plane[:: window.stride[0], :: window.stride[1]]
        return y if b is None else y + b.reshape(1, -1, 1, 1)

    def tanh(self, x: Array) -> Array:
        """numpy.tanh, which SciPy leaves to NumPy."""
        return np.tanh(x)

    def sigmoid(self, x: Array) -> Array:
        """scipy.special.expit."""
        return _special("expit", x)

    def softplus(self, x: Array) -> Array:
        """scipy.special.softplus."""
        return _special("softplus", x)

    def log_softmax(self, x: Array) -> Array:
        """scipy.special.log_softmax over the last axis."""
        return _special("log_softmax", x, axis=-1)

    def normal_log_prob(self, x: Array, mu: Array, sigma: Array) -> Array:
        """scipy.stats.norm.logpdf."""
        from scipy.stats import norm

        return np.asarray(norm.logpdf(x, mu, sigma))


def _special(name: str, x: Array, **options: Any) -> Array:
    import scipy.special

    with np.errstate(all="ignore"):
        return np.asarray(getattr(scipy.special, name)(x, **options))


direct = SciPy("direct")
fft = SciPy("fft")


def __getattr__(name: str) -> Any:
    """The module itself offers what `direct` does."""
    return getattr(direct, name)
