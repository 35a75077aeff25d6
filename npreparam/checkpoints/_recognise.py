"""Which blocks of which families a checkpoint holds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from npreparam._errors import ArgumentError
from npreparam.checkpoints import _generic
from npreparam.checkpoints._checkpoint import Checkpoint
from npreparam.checkpoints._dtypes import Array
from npreparam.checkpoints._families import families
from npreparam.checkpoints._leaves import PLACEHOLDER, MismatchError, tensor_of
from npreparam.checkpoints._match import Matcher
from npreparam.checkpoints._pattern import Pattern
from npreparam.checkpoints.expression import BatchNorm, Conv, Expression, Sum, leaves, nodes
from npreparam.checkpoints.expression import Sequence as Steps

GENERIC = Pattern("conv_bn", "conv_bn(conv, bn, pad=any)")
COMMON = {"layer_scale", "conv_out", "conv_first", "conv_last", "conv_bn", "conv1_bn", "conv2_bn"}  # no sign of a branch: many networks have them


@dataclass(frozen=True)
class Block:
    """One linear block: what it computes from which tensors, and what must still be known or why it cannot be one convolution.

    >>> block = Block("a", "conv3xc", Sum((Conv("sk.weight"), Conv("conv.weight"))), "a.eval_conv", ("sk.weight", "conv.weight"), open=("stride",))
    >>> block.branches(), block.needed()
    (2, ())
    """

    name: str
    family: str
    expression: Expression
    fused: str  # the module whose weight and bias the fused ones become
    tensors: tuple[str, ...]  # all that the fused block replaces, stale ones included
    stale: tuple[str, ...] = ()  # fused tensors beside their branches: placeholders or older than those
    open: tuple[str, ...] = ()  # what neither the state dict nor the table says
    assumed: tuple[str, ...] = ()
    refusal: str = ""
    prefix: str = ""  # what the tensors' names begin with, before the names of the pattern
    same_as: str = ""  # the block of which this one is the same module under another name

    def needed(self) -> tuple[str, ...]:
        """The part of `open` on which the fused weights depend: geometry only where convolutions follow each other, and never the stride."""
        chained = any(isinstance(part, Steps) and sum(isinstance(step, Conv) for step in part.steps) > 1 for part in nodes(self.expression))
        return tuple(what for what in self.open if what != "stride" and (chained or what not in ("groups", "padding", "dilation")))

    def branches(self) -> int:
        """The number of parallel branches."""
        parts = self.expression.steps if isinstance(self.expression, Steps) else (self.expression,)
        return max((len(part.terms) for part in parts if isinstance(part, Sum)), default=1)


@dataclass(frozen=True)
class Recognition:
    """Every tensor of a checkpoint is in exactly one block, passed through, or left over with a reason.

    >>> print(Recognition((), ("head.weight",), {"bn.weight": "half of a block"}).summary())
    1 tensors pass through, 1 are left over
    """

    blocks: tuple[Block, ...]
    passed_through: tuple[str, ...]
    left_over: dict[str, str]
    already_fused: tuple[str, ...] = field(default=())

    def summary(self) -> str:
        """A line per block and one for the rest."""
        lines = [f"{block.name}: {block.family}, {block.branches()} branches, {len(block.tensors)} tensors"
                 + (f"; the same module as {block.same_as}" if block.same_as else "")
                 + (f"; to be given: {', '.join(block.open)}" if block.open else "")
                 + (f"; cannot be fused: {block.refusal}" if block.refusal else "") for block in self.blocks]
        return "\n".join([*lines, f"{len(self.passed_through)} tensors pass through, {len(self.left_over)} are left over"])


@dataclass(frozen=True)
class _Given:
    eps: float | None
    stride: int | Mapping[str, int] | None
    identity: bool | None
    transposed: Collection[str] | None

    def stride_of(self, block: str) -> int | None:
        return self.stride.get(block) if isinstance(self.stride, Mapping) else self.stride


def recognise(checkpoint: Mapping[str, Array], family: str = "auto", *, patterns: Sequence[Pattern] = (), eps: float | None = None,
              stride: int | Mapping[str, int] | None = None, identity: bool | None = None,
              transposed: Collection[str] | None = None) -> Recognition:
    """Find the re-parameterizable blocks of a checkpoint by its tensors' names and shapes.

    Each block becomes an expression over tensor names (`npreparam.checkpoints.expression`). Prefixes ("module.", "network.") are part of a
    block's name. `family` restricts the search to one table; `patterns` (see `read_patterns`) come before the built-in ones. What a state
    dict cannot say is taken from the family's table, and named in the block's `open` where that is silent or families differ: give it as
    `eps`, `stride` (one, or by block name), `identity` (whether x itself is added where that leaves no tensor) and `transposed` (names of
    transposed convolutions, * standing for anything; () for none). What is given wins over the table, but not over what the tensors prove: a
    block with an identity branch has stride 1.

    Raises ArgumentError for an unknown family.

    Source: BatchNorm and branch names of the repositories named in `_families`.

    >>> import numpy as np
    >>> weights = {"c.weight": np.ones((2, 2, 1, 1))} | {f"bn.{n}": np.ones(2) for n in ("weight", "bias", "running_mean", "running_var")}
    >>> block, = recognise(weights, stride=1).blocks
    >>> block.family, block.open, [type(step).__name__ for step in block.expression.steps]
    ('conv2d_bn', ('padding', 'dilation', 'groups'), ['Conv', 'BatchNorm'])
    """
    table = (*patterns, *families())
    known = list(dict.fromkeys([*(pattern.family for pattern in table), GENERIC.family]))
    if family != "auto" and family not in known:
        raise ArgumentError(f"`family` (={family!r}) must be auto or one of {', '.join(known)}; one of your own can be described in "
                            "a file that ends in .toml")
    own, built_in = ([p for p in group if (p.auto if family == "auto" else p.family == family)] for group in (patterns, families()))
    search = _Search({name: tuple(array.shape) for name, array in checkpoint.items()}, _Given(eps, stride, identity, transposed))
    for alternatives in (*([pattern] for pattern in own), *_by_tensors(built_in)):
        search.find(alternatives)
    if family in ("auto", GENERIC.family):
        search.find_pairs()
    return search.result([*own, *built_in], checkpoint)


def _by_tensors(patterns: Sequence[Pattern]) -> Iterator[list[Pattern]]:
    """Patterns with the same tensors, which only the user can tell apart."""
    groups: dict[tuple[str, ...], list[Pattern]] = {}
    for pattern in patterns:
        groups.setdefault(tuple(sorted(set(pattern.term.paths()))), []).append(pattern)
    yield from groups.values()


class _Search:
    """The blocks found so far, and the tensors that they claim."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], given: _Given) -> None:
        self.shapes, self.given = shapes, given
        self.owners = {name[:at] for name in shapes for at in range(len(name)) if name[at] == "."}
        self.claimed: dict[str, str] = {}
        self.blocks: list[Block] = []
        self.failures: dict[str, tuple[int, str, list[str]]] = {}  # by prefix: how much was there, what was missing, the names looked for

    def find(self, alternatives: list[Pattern]) -> None:
        """All blocks of one kind."""
        pattern = alternatives[0]
        anchor = next(leaf for leaf in pattern.term.required() if leaf.kind in ("conv", "conv_bn", "bn", "scale") and leaf.arguments)
        tail = re.escape(PLACEHOLDER.sub("\0", tensor_of(anchor))).replace("\0", r"(\d+)", 1).replace("\0", r"\d+")
        tail = tail.replace("running_var", "(?:running_var|_variance)")
        regex, numbered = re.compile(rf"(?P<prefix>(?:.*\.)?){tail}"), PLACEHOLDER.findall(pattern.fused)
        matches = [found for name in self.shapes if name not in self.claimed and (found := regex.fullmatch(name))]
        for prefix, *number in dict.fromkeys((found["prefix"], *found.groups()[1:][: len(numbered)]) for found in matches):
            try:
                self._match(alternatives, prefix, dict(zip(numbered, map(int, number), strict=True)))
            except MismatchError as error:
                self._failed(prefix, f"{pattern.family}: {error}", [prefix + path for path in pattern.term.paths()])

    def _failed(self, prefix: str, reason: str, names: list[str]) -> None:
        """Keep the reason of the pattern that came closest."""
        present = sum(name in self.owners or name in self.shapes for name in names)
        if present > self.failures.get(prefix, (0,))[0]:
            self.failures[prefix] = present, reason, names

    def _match(self, alternatives: list[Pattern], prefix: str, binding: dict[str, int]) -> None:
        pattern = alternatives[0]
        matcher = Matcher(pattern, prefix, self.shapes, self.owners)
        fused = matcher.full(pattern.fused, binding).rstrip(".")
        name = fused if binding else prefix.rstrip(".") or fused or pattern.family
        if any(block.name == name for block in self.blocks):
            name = fused
        eps = {each.eps for each in alternatives}
        matcher.eps = self.given.eps if self.given.eps is not None else pattern.eps if len(eps) == 1 else None
        matcher.stride = self.given.stride_of(name) or pattern.stride
        matcher.identity = self.given.identity
        expression = matcher.match(binding)
        if self._differ(alternatives, matcher, binding):
            matcher.open["family, " + " or ".join(dict.fromkeys(each.family for each in alternatives))] = None
        if any(tensor in self.claimed for tensor in matcher.used):
            raise MismatchError(f"its tensors belong to {next(self.claimed[t] for t in matcher.used if t in self.claimed)}")
        stale = [f"{fused}.{part}" for part in ("weight", "bias") if f"{fused}.{part}" in self.shapes and f"{fused}.{part}" not in matcher.used]
        stale = [tensor for tensor in stale if tensor not in self.claimed]
        refusal = pattern.refuse or next((why for tensor, why in pattern.refuse_if.items() if prefix + tensor in self.shapes), "")
        refusal = refusal or next((f"{why} ({tensor})" for part, why in pattern.refuse_anywhere.items()
                                   for tensor in self.shapes if part in tensor), "")
        if len(eps) > 1 and matcher.eps is None:
            matcher.open["eps, " + " or ".join(f"{each.eps} ({each.family})" for each in alternatives)] = None
        self._add(Block(name, pattern.family, expression, fused, (*matcher.used, *stale), tuple(stale), tuple(matcher.open), (), refusal, prefix))

    def _add(self, block: Block) -> None:
        unknown = dict.fromkeys(block.open)
        for leaf in leaves(block.expression):
            if isinstance(leaf, BatchNorm) and leaf.eps is None and not any(what.startswith("eps") for what in unknown):
                unknown["eps"] = None
            if isinstance(leaf, Conv):
                unknown |= dict.fromkeys(what for what in ("stride", "padding", "dilation", "groups") if getattr(leaf, what) is None)
        self.blocks.append(replace(block, open=tuple(unknown)))
        self.claimed |= dict.fromkeys(block.tensors, block.name)

    def _differ(self, alternatives: list[Pattern], first: Matcher, binding: dict[str, int]) -> bool:
        """Whether patterns with the same tensors make something else of them, if x is added where that is not known."""
        different, found = {each.expression: each for each in alternatives}, set()
        for pattern in different.values() if len(different) > 1 else ():
            matcher = Matcher(pattern, first.prefix, self.shapes, self.owners)
            matcher.eps, matcher.stride, matcher.identity = first.eps, first.stride, True if "identity" in first.open else first.identity
            found.add(matcher.match(binding))
        return len(found) > 1

    def find_pairs(self) -> None:
        """Convolutions with a batch norm after them that no table has claimed."""
        for conv, norm, assumed in _generic.pairs(self.shapes):
            pattern = replace(GENERIC, expression=f"conv_bn({conv}, {norm}, pad=any)")
            shape, channels = self.shapes[f"{conv}.weight"], self.shapes.get(f"{norm}.running_var", self.shapes.get(f"{norm}._variance", ()))
            transposed = _generic.is_transposed(shape, channels[0] if len(channels) == 1 else -1)
            if self.given.transposed is not None:
                transposed = any(fnmatchcase(conv, name) for name in self.given.transposed)
            try:
                self._pair(pattern, conv, assumed, transposed)
            except (MismatchError, ArgumentError) as error:  # ArgumentError: a name that is no path of the pattern language
                self._failed(f"{norm}.", f"{pattern.family}: {error}", [norm])

    def _pair(self, pattern: Pattern, conv: str, assumed: str, transposed: bool | None) -> None:
        shapes = dict(self.shapes)
        if transposed:  # (I, O/groups, ...): seen by the matcher as the convolution that it is the adjoint of
            shapes[f"{conv}.weight"] = _as_forward(self.shapes, conv, pattern)
        matcher = Matcher(pattern, "", shapes, self.owners)
        matcher.eps = self.given.eps if self.given.eps is not None else pattern.eps
        matcher.stride = self.given.stride_of(conv)
        expression: Any = matcher.match({})
        if any(tensor in self.claimed for tensor in matcher.used):
            return
        first, norm = expression.steps
        if transposed:
            shape, channels = self.shapes[f"{conv}.weight"], shapes[f"{conv}.weight"][0]
            first = replace(first, transposed=True, groups=channels // shape[1])
        unknown = ("transposed",) if transposed is None else ()
        self._add(Block(conv, pattern.family, Steps((first, norm)), conv, tuple(matcher.used), (), unknown, (assumed,) if assumed else ()))

    def result(self, patterns: Sequence[Pattern], checkpoint: Mapping[str, Array]) -> Recognition:
        """Sort what no block claims into the ordinary and the suspicious."""
        rest = [name for name in self.shapes if name not in self.claimed]
        branches = {part for p in patterns for path in p.term.paths() for part in path.split(".") if "_" in part} - COMMON
        regex = re.compile("|".join(PLACEHOLDER.sub(r"\\d+", part) for part in sorted(branches)) or r"(?!)")
        fused = {last for p in patterns if "_" in (last := p.fused.rpartition(".")[2])}
        finished = {name: name.rpartition(".")[0].rpartition(".")[0] for name in rest if name.split(".")[-2:-1] and name.split(".")[-2] in fused}
        suspicious = {name: parent for name in rest if name not in finished and (parent := _parent(name, regex)) is not None}
        half = set(suspicious.values())  # modules with branches that are in no block
        looked_for = [owner for prefix, (_, _, names) in self.failures.items() if prefix.rstrip(".") in half for owner in names]
        near = {name for name in rest if any(name == owner or name.startswith(f"{owner}.") for owner in looked_for)}
        already = tuple(name for name, parent in finished.items() if parent not in half)
        left = {name: self._reason(name) for name in rest
                if name in suspicious or name in near or (name in finished and finished[name] in half)}
        passed = tuple(name for name in rest if name not in left)
        blocks = [_complete(block, suspicious) for block in self.blocks]
        return Recognition(tuple(_shared(blocks, checkpoint) if isinstance(checkpoint, Checkpoint) else blocks), passed, left, already)

    def _reason(self, name: str) -> str:
        found = [(len(prefix), why) for prefix, (_, why, _) in self.failures.items() if name.startswith(prefix)]
        return max(found)[1] if found else "is named like a branch, but there is no complete block around it"


def _parent(name: str, branches: re.Pattern[str]) -> str | None:
    """The module in which a name's first branch-like component lies, or None without one."""
    parts = name.split(".")
    return next((".".join(parts[:i]) for i, part in enumerate(parts) if branches.fullmatch(part)), None)


def _complete(block: Block, suspicious: Mapping[str, str]) -> Block:
    """A block beside further branches that its pattern does not know must not be fused without them."""
    strays = [name for name, parent in suspicious.items() if parent == block.prefix.rstrip(".")]
    if not strays or block.refusal or block.family == GENERIC.family:
        return block
    return replace(block, refusal=f"{strays[0]} lies in the same module, but {block.family} has no such branch")


def _as_forward(shapes: Mapping[str, tuple[int, ...]], conv: str, pattern: Pattern) -> tuple[int, ...]:
    """The kernel shape (O, I/groups, ...) of a transposed convolution's (I, O/groups, ...)."""
    weight = f"{conv}.weight"
    norm = pattern.term.arguments[1]
    channels = next(shapes[f"{norm}.{var}"][0] for var in ("running_var", "_variance") if f"{norm}.{var}" in shapes)
    inputs, part, *size = shapes[weight]
    groups = channels // part if part and channels % part == 0 else 0
    if not groups or inputs % groups:
        raise MismatchError(f"{weight} of shape {shapes[weight]} fits {norm} with {channels} channels neither as a convolution nor transposed")
    return (channels, inputs // groups, *size)


def _shared(blocks: list[Block], checkpoint: Checkpoint) -> list[Block]:
    """Mark the blocks whose tensors are, one by one, those of an earlier block."""
    first: dict[Any, str] = {}
    result = []
    for block in blocks:
        place = tuple(checkpoint.spans.get(name, name) for name in block.tensors)
        owner = first.setdefault(place, block.name)
        result.append(replace(block, same_as=owner) if owner != block.name else block)
    return result
