"""Options that several commands share, as records: a field is an option, and a command takes the record instead of a dozen arguments."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from npreparam._errors import ArgumentError
from npreparam.checkpoints import Recognition, read_patterns, recognise
from npreparam.checkpoints._recognise import GENERIC
from npreparam.checkpoints.expression import BatchNorm, Conv, leaves


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a user says of a checkpoint that its tensors do not."""

    family: Annotated[str, typer.Option(help="auto, a family's name, or a TOML file of your own patterns (`fuse --help` shows one).")] = "auto"
    eps: Annotated[float | None, typer.Option(min=0, help="The batch norms' eps, where the family does not tell it.")] = None
    stride: Annotated[int | None, typer.Option(min=1, help="The blocks' stride.")] = None
    identity: Annotated[bool | None, typer.Option("--identity/--no-identity", help="Whether x itself is added where that leaves no tensor.")] = None
    transposed: Annotated[list[str] | None, typer.Option(
        help='A transposed convolution, once for each, * standing for anything ("decoder.*"); "" for none.')] = None

    def to_json(self) -> dict[str, Any]:
        """What was answered, without a pattern file, which has a path and no place in another file."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return {name: value for name, value in given.items() if not str(value).endswith(".toml")}

    def completed(self, stored: Any) -> tuple[Answers, str]:
        """These answers, and where they are silent those that a fused file says it was made with; and which those are."""
        known = {"family": str, "eps": float | int, "stride": int, "identity": bool, "transposed": list}
        taken = {name: value for name, value in (stored.items() if isinstance(stored, dict) else ())
                 if isinstance(value, known.get(name, ())) and getattr(self, name) == getattr(Answers, name, None)}
        text = ", ".join(f"{name} {value}" for name, value in taken.items())
        return dataclasses.replace(self, **taken), text

    def recognise(self, tensors: Any) -> Recognition:
        """The blocks; `family` may be the path of a TOML file."""
        patterns = read_patterns(self.family) if self.family.endswith(".toml") else ()
        transposed = None if self.transposed is None else tuple(filter(None, self.transposed))
        found = recognise(tensors, "auto" if patterns else self.family, patterns=patterns, eps=self.eps, stride=self.stride,
                          identity=self.identity, transposed=transposed)
        if not found.blocks:
            of = "that any family knows" if self.family == "auto" else f"of family {self.family}"
            raise ArgumentError(f"no block {of} is in the checkpoint" + "".join(f"; {name}: {why}" for name, why in list(found.left_over.items())[:1])
                                + "".join(f"; it seems to be fused already: it has {name}" for name in found.already_fused[:1]))
        return found

    def check_effect(self, tensors: Any, found: Recognition, completed: Answers) -> None:
        """Refuse an answer that changes no block: its user believes something of the checkpoint that is not so."""
        inside = [leaf for block in found.blocks for leaf in leaves(block.expression)]
        norms, strides = any(isinstance(leaf, BatchNorm) for leaf in inside), {leaf.stride for leaf in inside if isinstance(leaf, Conv)}
        if self.eps is not None and not norms:
            raise ArgumentError(f"--eps (={self.eps}) has no effect, since no block has a batch norm; leave it out")
        if self.stride is not None and strides and self.stride not in strides:
            raise ArgumentError(f"--stride (={self.stride}) has no effect, since the blocks say themselves that theirs is "
                                f"{', '.join(map(str, sorted(filter(None, strides))))}; leave it out")
        if self.identity is not None and dataclasses.replace(completed, identity=not self.identity).recognise(tensors).blocks == found.blocks:
            raise ArgumentError(f"--{'' if self.identity else 'no-'}identity has no effect, since every block tells itself whether it adds x; "
                                "leave it out")
        pairs = [block.name for block in found.blocks if block.family == GENERIC.family]
        for name in self.transposed or ():
            if name and not fnmatch.filter(pairs, name):
                raise ArgumentError(f"--transposed (={name}) has no effect, since no convolution is called so that has a batch norm "
                                    "behind it and is in no block of a known family; `--dry-run` lists their names")


@dataclasses.dataclass(frozen=True)
class Reports:
    """For which inputs the certificate is, and where it goes."""

    max_input: Annotated[float, typer.Option(min=0, help="The bounds are for inputs of at most this magnitude.")] = 1.0
    inputs: Annotated[Path | None, typer.Option(help="Real inputs to measure on as well: .npy (N, C, H, W), for every block of C input channels; "
                                                     "or .npz with one such array for each block, under its name.")] = None
    report: Annotated[Path | None, typer.Option(help="Also write the certificate as JSON.")] = None
    html: Annotated[Path | None, typer.Option(help="Also write the certificate as a page that needs no network.")] = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose arguments that are records of options are, to its user, their fields."""
    hints = get_type_hints(command, include_extras=True)
    records = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    flat: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        record = records.get(parameter.name)
        if record is None:
            flat.append(parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY))
        else:
            types = get_type_hints(record, include_extras=True)
            flat += [inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=types[f.name])
                     for f in dataclasses.fields(record)]

    @functools.wraps(command)
    def called(**values: Any) -> None:
        for name, record in records.items():
            values[name] = record(**{f.name: values.pop(f.name) for f in dataclasses.fields(record)})
        command(**values)

    called.__signature__ = inspect.Signature(flat)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in flat}
    return called
