"""The little language of the family tables.

    expression = kind "(" [argument {"," argument}] ")" [repeat]
    argument   = expression | path | option "=" value
    repeat     = "?" (may be absent) | "+" (one or more) | "*" (any number)

A path is relative to the block; "{i}" in it stands for a number, the same throughout the term that is repeated, or, where `fused` has it
too, throughout the block.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npreparam._errors import ArgumentError, FormatError

TOKEN = re.compile(r"\s*([A-Za-z0-9_.{}+-]+(?=\s*[(,)=]|$)|[(),=?*+])")
KINDS = {"sum", "cat", "split", "last", "grid", "seq", "either", "conv", "conv_bn", "bn", "scale", "pad", "avgpool", "shuffle", "identity", "skip"}
OPTIONS = {"weight", "bias", "factor", "shape", "pad", "dilation", "stride", "groups", "kernel", "number", "row", "rows", "size", "when"}
MAX_NESTING = 20


@dataclass(frozen=True, slots=True)
class Term:
    """One node of a pattern: its kind, sub-terms or paths, options, and whether it repeats."""

    kind: str
    arguments: tuple[Term | str, ...]
    options: tuple[tuple[str, str], ...] = ()
    repeat: str = ""

    def option(self, name: str) -> str | None:
        """The value of an option, or None."""
        return dict(self.options).get(name)

    def paths(self) -> Iterator[str]:
        """All paths in it, with those that optional and repeated terms have."""
        for argument in self.arguments:
            if isinstance(argument, Term):
                yield from argument.paths()
            else:
                yield argument

    def required(self) -> Iterator[Term]:
        """Its leaves that every block must have, in order."""
        if self.repeat in ("?", "*") or self.kind == "either":
            return
        if not any(isinstance(argument, Term) for argument in self.arguments):
            yield self
        for argument in self.arguments:
            if isinstance(argument, Term):
                yield from argument.required()


@dataclass(frozen=True)
class Pattern:
    """One kind of block: what its tensors are called and what it computes; absent values must be given by the user.

    >>> pattern = Pattern("mine", "sum(conv(big), conv(small)?)", fused="big")
    >>> pattern.term.kind, [leaf.arguments for leaf in pattern.term.required()]
    ('sum', [('big',)])
    """

    family: str
    expression: str
    fused: str = ""  # where the fused weight and bias go, relative to the block
    eps: float | None = None
    stride: int | None = None
    groups: int | str | None = None  # a number, "depthwise", or "a/b": the outputs of kernel a over the inputs of a group of kernel b
    auto: bool = True  # False: only when the family is asked for, as the names are too common
    refuse: str = ""  # why no block of this kind can be one convolution
    refuse_if: dict[str, str] = field(default_factory=dict)  # the same if the block has this tensor
    refuse_anywhere: dict[str, str] = field(default_factory=dict)  # the same if any name of the checkpoint contains this

    @property
    def term(self) -> Term:
        """The expression, parsed."""
        return parse(self.expression)


def parse(text: str) -> Term:
    """A pattern expression as terms; ArgumentError says where it cannot be read.

    >>> parse("sum(conv(a.conv, pad=0), bn(b)?)").arguments[1]
    Term(kind='bn', arguments=('b',), options=(), repeat='?')
    """
    tokens, position = [], 0
    while text[position:].strip():
        found = TOKEN.match(text, position)
        if not found:
            raise ArgumentError(f"pattern {text!r} cannot be read at {text[position:].strip()[:20]!r}")
        tokens.append(found[1])
        position = found.end()
    term, rest = _term([*tokens, ""], 0, text)
    if rest != len(tokens):
        raise ArgumentError(f"pattern {text!r} goes on after its end: {''.join(tokens[rest:])[:20]!r}")
    return term


def _term(tokens: list[str], at: int, text: str, depth: int = 0) -> tuple[Term, int]:
    kind = tokens[at]
    if kind not in KINDS or tokens[at + 1] != "(" or depth > MAX_NESTING:
        raise ArgumentError(f"pattern {text!r} has {kind!r} where one of {', '.join(sorted(KINDS))} and '(' should be")
    arguments: list[Term | str] = []
    options: list[tuple[str, str]] = []
    at += 2
    while tokens[at] != ")":
        if tokens[at + 1 : at + 2] == ["("]:
            term, at = _term(tokens, at, text, depth + 1)
            arguments.append(term)
        elif tokens[at + 1 : at + 2] == ["="] and tokens[at] in OPTIONS and at + 2 < len(tokens):
            options.append((tokens[at], tokens[at + 2]))
            at += 3
        elif tokens[at] and tokens[at] not in "(),=?*+":
            arguments.append(tokens[at])
            at += 1
        else:
            raise ArgumentError(f"pattern {text!r} has {tokens[at]!r} where a path, a term or an option should be")
        if tokens[at] == ",":
            at += 1
        elif tokens[at] != ")":
            raise ArgumentError(f"pattern {text!r} has {tokens[at]!r} where ',' or ')' should be")
    at += 1
    repeat = tokens[at] if tokens[at] in ("?", "+", "*") else ""
    return Term(kind, tuple(arguments), tuple(options), repeat), at + bool(repeat)


def read_patterns(path: str | Path) -> tuple[Pattern, ...]:
    r"""A user's own patterns from a TOML file of [[pattern]] tables, with the fields of `Pattern`.

    Raises FormatError that names the file and the fault.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     table = '[[pattern]]\nfamily = "mine"\nexpression = "sum(conv(big), conv(small))"'
    ...     _ = Path(folder, "mine.toml").write_text(table)
    ...     print([pattern.family for pattern in read_patterns(f"{folder}/mine.toml")])
    ['mine']
    """
    try:
        return patterns_of(Path(path).read_text())
    except (OSError, UnicodeDecodeError, ArgumentError) as error:
        raise FormatError(f"{path}: {error}") from None


def patterns_of(text: str) -> tuple[Pattern, ...]:
    """The patterns of a TOML text; ArgumentError names an unknown, missing or mis-typed field."""
    try:
        tables = tomllib.loads(text).get("pattern")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ArgumentError(f"is no TOML: {error}") from None
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ArgumentError("has no [[pattern]] tables")
    return tuple(_pattern(table) for table in tables)


TYPES: dict[str, tuple[type, ...]] = {
    "family": (str,), "expression": (str,), "fused": (str,), "eps": (float, int), "stride": (int,), "groups": (int, str), "auto": (bool,),
    "refuse": (str,), "refuse_if": (dict,), "refuse_anywhere": (dict,)}


def _pattern(table: dict[str, Any]) -> Pattern:
    label = f"pattern {table.get('family')!r}"
    for key in ("family", "expression"):
        if key not in table:
            raise ArgumentError(f"{label} lacks `{key}`")
    for key, value in table.items():
        if key not in TYPES:
            raise ArgumentError(f"{label} has the unknown field `{key}`; known are {', '.join(TYPES)}")
        if type(value) not in TYPES[key] or (isinstance(value, dict) and not all(isinstance(v, str) for v in value.values())):
            raise ArgumentError(f"{label}: `{key}` (={value!r}) must be {' or '.join(t.__name__ for t in TYPES[key])}")
    pattern = Pattern(**table)
    if isinstance(pattern.groups, str) and pattern.groups != "depthwise" and not re.fullmatch(r"[^/]+/[^/]+", pattern.groups):
        raise ArgumentError(f"{label}: `groups` (={pattern.groups!r}) must be a number or 'depthwise', or 'a/b' for two kernels")
    anchor = next((term for term in pattern.term.required() if term.arguments and term.kind in ("conv", "conv_bn", "bn", "scale")), None)
    if anchor is None:
        raise ArgumentError(f"{label}: `expression` must have a tensor that is neither optional nor an alternative")
    numbers = re.findall(r"\{\w+\}", pattern.fused)
    if numbers and numbers != re.findall(r"\{\w+\}", str(anchor.arguments[0])):
        raise ArgumentError(f"{label}: `fused` (={pattern.fused!r}) has {numbers[0]}, so the first path (={anchor.arguments[0]!r}) must have it too, "
                            "and no other")
    return pattern
