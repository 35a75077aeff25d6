"""What an implementation declares about its arithmetic, and what that makes of one sum.

A profile names the formats of the operands, of the accumulator and of the output, the order of summation, the algorithm, and whether
results below the normal range are flushed to zero. From these follow the few numbers every bound is built of: the unit roundoff u, the
number k of roundings that a term of a sum passes, the factor they grow into, and what underflow adds.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from npreparam._errors import ArgumentError
from npreparam.certified.bounds._majorant import Floats, as_finite
from npreparam.exact import rounding
from npreparam.exact.rounding import Format

STORED = {name: rounding.FORMATS[name] for name in ("float16", "bfloat16", "float32", "float64")}
Bound = TypeVar("Bound", bound=Callable[..., Any])
FORMATS = {**STORED, "tf32": Format(11, -126, 127, np.uint32)}
ORDERS = ("any", "pairwise", "tensor_core")
ALGORITHMS = ("direct", "winograd_2_3", "winograd_4_3", "winograd_6_3", "fft")


def unit(form: str) -> float:
    """Unit roundoff of a format, u = 2^-p."""
    return 2.0 ** -FORMATS[form].precision


def smallest(form: str) -> float:
    """Smallest subnormal number of a format, eta = 2^(e_min - p + 1)."""
    return 2.0 ** (FORMATS[form].e_min - FORMATS[form].precision + 1)


def smallest_normal(form: str) -> float:
    """Smallest normal number of a format, 2^e_min."""
    return 2.0 ** FORMATS[form].e_min


def largest(form: str) -> float:
    """Largest finite number of a format, (2 - 2u)*2^e_max."""
    return (2 - 2 * unit(form)) * 2.0 ** FORMATS[form].e_max


def is_value_of(x: Floats, form: str) -> NDArray[np.bool_]:
    """Which float64 numbers are numbers of a format: integer multiples of its spacing there, inside its range.

    >>> is_value_of(np.array([1 + 2**-10, 1 + 2**-11, 2.0**-24, 65536.0]), "float16")
    array([ True, False,  True, False])
    """
    spacing = np.maximum(np.frexp(x)[1] - 1, FORMATS[form].e_min) - FORMATS[form].precision + 1
    scaled = np.ldexp(x, -spacing)
    return (scaled == np.rint(scaled)) & (np.abs(x) <= largest(form))


@dataclass(frozen=True, slots=True)
class Profile:
    """The arithmetic that an implementation declares.

    * `input_rounding`, `accumulator`, `output`: "float16", "bfloat16", "float32", "float64"; "tf32" (11 bits in the range of float32) for the
      first. Operands are rounded to nearest where they are no numbers of that format, and are used as they are otherwise.
    * `order`: "any" (any order and blocking, fused or not, each operation rounded to nearest); a positive integer b (blocks of b terms, each
      summed in any order, then the block sums in any order); "pairwise" (a balanced binary tree); "tensor_core" (sums of several
      operands at once, aligned to the largest and *truncated*, then truncated again).
    * `algorithm`: "direct", "winograd_2_3", "winograd_4_3", "winograd_6_3" or "fft"; for convolutions.
    * `flush_to_zero`: subnormal operands and results become 0.

    Raises ArgumentError.

    >>> float(Profile(order=128).roundings(1024))
    135.0
    """

    input_rounding: str = "float32"
    accumulator: str = "float32"
    order: str | int = "any"
    algorithm: str = "direct"
    output: str = "float32"
    flush_to_zero: bool = False

    def __post_init__(self) -> None:
        for field, choices in (("input_rounding", tuple(FORMATS)), ("accumulator", tuple(STORED)), ("output", tuple(STORED)),
                               ("algorithm", ALGORITHMS), ("flush_to_zero", (False, True))):
            value = getattr(self, field)
            if value not in choices:
                raise ArgumentError(f"`{field}` (={value!r}) must be one of {', '.join(map(repr, choices))}")
        blocked = isinstance(self.order, int) and not isinstance(self.order, bool) and self.order >= 1
        if not blocked and self.order not in ORDERS:
            raise ArgumentError(f"`order` (={self.order!r}) must be a positive block length or one of {', '.join(map(repr, ORDERS))}")

    @property
    def unit(self) -> float:
        """Largest relative error of one operation: u to nearest, 2u where the accumulator truncates."""
        return unit(self.accumulator) * (2 if self.order == "tensor_core" else 1)

    @property
    def tiny(self) -> float:
        """Largest absolute error of one operation that underflows: eta, or the smallest normal number where it is flushed to zero."""
        return smallest_normal(self.accumulator) if self.flush_to_zero else smallest(self.accumulator)

    @property
    def limit(self) -> float:
        """Largest finite number of the accumulator."""
        return largest(self.accumulator)

    def roundings(self, terms: Any, length: Any = None, more: int = 0) -> Floats:
        """At most how many roundings a term of a sum passes, its own product's included: k.

        Any order: a tree with n leaves has n - 1 additions, so k = n. Blocks of b: k = b + ceil(n/b) - 1 (ASNA, section 4.2). Pairwise:
        k = ceil(log2 n) + 1. Tensor cores: a node that adds j operands truncates j - 1 of them and the result, and a tree with n leaves
        has at most 2n - 2 edges, so k = 2n. Terms that are zeros of padding cause no rounding, but they hold places in blocks and trees:
        these are counted over the whole `length`, zeros included. `more` operations come after the sum.
        """
        n = np.asarray(terms, np.float64)
        whole = n if length is None else np.asarray(length, np.float64)
        if self.order == "tensor_core":
            return 2 * n + 2 * more
        if self.order == "any":
            return n + more
        pairwise = self.order == "pairwise"
        depth = np.ceil(np.log2(np.maximum(whole, 1))) + 1 if pairwise else self.order + np.ceil(whole / self.order) - 1
        return np.minimum(n, depth) + more

    def compound(self, roundings: Any) -> Floats:
        """k roundings of relative error u, multiplied or divided by: |product of (1 + d)^(+-1) - 1| <= (1 - u)^-k - 1 <= k*u/(1 - k*u).

        Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition (ASNA), Lemma 3.1, without its condition k*u < 1.
        """
        return np.expm1(-np.asarray(roundings, np.float64) * np.log1p(-self.unit))

    def growth(self, terms: Any, length: Any = None, more: int = 0) -> Floats:
        """f such that |computed sum - sum| <= f * (sum of magnitudes), underflow apart.

        k*u for any order, to nearest, without condition on k or second-order terms (Jeannerod and Rump, SIAM J. Matrix Anal. Appl. 34(2), 2013).
        With fused operations as well, by their induction over the tree: the addition of results a and b, of n1 and n2 terms and magnitudes S1
        and S2, is off by at most min(|a|, |b|, u/(1 + u)*|a + b|), and that of a and an unrounded product p by at most
        min(|p|, u/(1 + u)*|a + p|); where S2 <= u*S1 the first kind of limit, elsewhere the last, is within u*(n2*S1 + n1*S2).

        Otherwise (1 - u)^-k - 1 (ASNA, eq. 3.5).
        """
        k = self.roundings(terms, length, more)
        return k * self.unit if self.order == "any" and not self.flush_to_zero else self.compound(k)

    def underflow(self, products: Any) -> Floats:
        """Absolute error that underflow adds to a sum of n products: n*eta, or n*2^e_min with flushing.

        Where results are flushed, so are those of additions: but a product that is flushed leaves nothing to add, and k terms that are
        left, with a bias k + 1, meet in at most so many additions less one.
        """
        return np.asarray(products, np.float64) * self.tiny

    def operand(self, x: Any, name: str) -> tuple[Floats, Floats]:
        """An operand as float64, and how far the number used in its place may be: 0, or u_in*|x| + eta_in where it must be rounded.

        Raises DTypeError, ArgumentError (NaN or infinity).
        """
        return self._rounded(as_finite(x, name), self.input_rounding)

    def addend(self, x: Any, name: str) -> tuple[Floats, Floats]:
        """The same of what enters a sum without a product, such as a bias: rounded to the accumulator's format."""
        return self._rounded(as_finite(x, name), self.accumulator)

    def parameter(self, x: Any, name: str) -> Floats:
        """An argument of an operation without products of operands, as float64; it must be a number of the accumulator's format.

        Raises DTypeError, ArgumentError.
        """
        values = as_finite(x, name)
        if not is_value_of(values, self.accumulator).all():
            raise ArgumentError(f"`{name}` holds numbers that are no {self.accumulator} numbers, the profile's accumulator; round them first")
        return values

    def _rounded(self, x: Floats, form: str) -> tuple[Floats, Floats]:
        size = np.abs(x)
        error = np.where(is_value_of(x, form), 0.0, unit(form) * size + smallest(form))
        error = np.where(size > largest(form), np.inf, error)
        if self.flush_to_zero:
            error = np.where(size < smallest_normal(form), size, error)
        return x, error

    def finish(self, error: Floats, value: Floats, partial: Any, bias: Floats | None = None) -> Floats:
        """Add the rounding to the output's format, and infinity where the range may be left.

        `value` is at least |exact result| without the `bias`, `partial` at least every partial sum. Without a format of its own the output is
        the accumulator. Otherwise its rounding is off by u_out*(|y| + error) + eta_out, and there are two where a bias is added: the sum
        may have been rounded before the bias was added in the output's format.
        """
        tiny = smallest_normal(self.output) if self.flush_to_zero else smallest(self.output)
        for addend in [0.0] if bias is None else [0.0, np.abs(bias)]:
            value = value + addend
            if self.output != self.accumulator:
                error = error + unit(self.output) * (value + error) + tiny
        fits = (partial + error <= self.limit) & (value + error <= largest(self.output))
        return np.where(fits, error, np.inf)


FLOAT32 = Profile()
FLOAT64 = Profile("float64", "float64", output="float64")
TF32 = Profile("tf32", "float32", order="tensor_core")
BFLOAT16_FLOAT32 = Profile("bfloat16", "float32", output="bfloat16")
FLOAT16_FLOAT32 = Profile("float16", "float32", output="float16")
FLOAT16_FLOAT16 = Profile("float16", "float16", output="float16")
WINOGRAD_F2_3 = Profile(algorithm="winograd_2_3")
WINOGRAD_F4_3 = Profile(algorithm="winograd_4_3")
WINOGRAD_F6_3 = Profile(algorithm="winograd_6_3")
FFT_FLOAT32 = Profile(algorithm="fft")

PROFILES = {name: value for name, value in globals().items() if isinstance(value, Profile)}


def profile_named(name: str) -> Profile:
    """A ready-made profile by its name, upper or lower case.

    Raises ArgumentError.

    >>> profile_named("tf32").input_rounding
    'tf32'
    """
    found = PROFILES.get(str(name).upper())
    if found is None:
        raise ArgumentError(f"`profile` (={name!r}) must be one of {', '.join(PROFILES)}; or make a Profile")
    return found


OF_DTYPE = {"float64": FLOAT64, "float16": FLOAT16_FLOAT32, "bfloat16": BFLOAT16_FLOAT32}  # float32 and integers: FLOAT32


def profiled(bound: Bound) -> Bound:
    """Let `profile` be a Profile, the name of a ready-made one, or None: the usual one for the dtype of the first operand."""
    signature = inspect.signature(bound)

    @functools.wraps(bound)
    def call(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        arguments.arguments["profile"] = as_profile(arguments.arguments["profile"], next(iter(arguments.arguments.values())))
        return bound(*arguments.args, **arguments.kwargs)

    return call  # type: ignore[return-value]


def as_profile(profile: Any, operand: Any = None) -> Profile:
    """A profile, by itself, by name, or by the dtype of an operand.

    Raises ArgumentError.
    """
    if profile is None and isinstance(operand, np.ndarray | np.generic):
        return OF_DTYPE.get(operand.dtype.name, FLOAT32)
    if isinstance(profile, str):
        return profile_named(profile)
    if profile is not None and not isinstance(profile, Profile):
        raise ArgumentError(f"`profile` (={profile!r}) must be a Profile or the name of one: {', '.join(PROFILES)}")
    return FLOAT32 if profile is None else profile
