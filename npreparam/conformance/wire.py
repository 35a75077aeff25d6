"""What a target's process says to the judge, as bytes that build nothing but numbers and text.

A message is the length of a JSON text in 8 bytes, that text, and the raw elements of the arrays it describes. Nothing is unpickled: what a
target does is judged, not run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
from typing import Any

import numpy as np

from npreparam.certified.bounds import LikelyProfile, Profile
from npreparam.conformance.case import Level
from npreparam.conformance.runner import Reply, is_numbers
from npreparam.conformance.target import Declaration
from npreparam.exact.rounding import FORMATS, dtype_of

LENGTH = struct.Struct("<Q")
PROFILES = {"profile": Profile, "likely": LikelyProfile}


def pack_reply(reply: Reply) -> bytes:
    """A reply.

    >>> unpack_reply(pack_reply(Reply((np.float32([1, 2]),)))).outputs
    (array([1., 2.], dtype=float32),)
    """
    text = json.dumps({"level": None if reply.level is None else reply.level.name, "explanation": reply.explanation,
                       "arrays": [[array.dtype.name, list(array.shape)] for array in reply.outputs]}).encode()
    return b"".join([LENGTH.pack(len(text)), text, *(array.tobytes() for array in reply.outputs)])


def unpack_reply(payload: bytes) -> Reply:
    """The reply in a message. Raises ValueError for anything else."""
    try:
        (length,) = LENGTH.unpack_from(payload)
        told, at = json.loads(payload[LENGTH.size:LENGTH.size + length]), LENGTH.size + length
        arrays = []
        for name, shape in told["arrays"]:
            dtype, count = _dtype(name), math.prod(shape)
            arrays.append(np.frombuffer(payload, dtype, count, at).reshape(shape).copy())
            at += count * dtype.itemsize
        if at != len(payload):
            raise ValueError("bytes are left over")
        return Reply(tuple(arrays), None if told["level"] is None else Level[told["level"]], str(told["explanation"]))
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise ValueError(f"no reply: {type(error).__name__}: {error}") from None


def _dtype(name: str) -> np.dtype[Any]:
    dtype = dtype_of(name) if name in FORMATS else np.dtype(name)
    if not is_numbers(dtype):
        raise ValueError(f"elements of dtype {name}")
    return dtype


def pack_hello(declaration: Declaration, offers: tuple[str, ...]) -> bytes:
    """What a target declares, and the functions that it offers.

    >>> unpack_hello(pack_hello(Declaration("mine", profiles={"float32": "tf32"}), ("tanh",)))[1]
    ('tanh',)
    """
    told = {field.name: getattr(declaration, field.name) for field in dataclasses.fields(declaration)}
    told |= {"unsupported": dict(declaration.unsupported), "conventions": dict(declaration.conventions),
             "profiles": {dtype: _told(profile) for dtype, profile in declaration.profiles.items()}}
    return json.dumps({"declaration": told, "offers": offers}).encode()


def pack_refusal(line: str) -> bytes:
    """Why there is no target."""
    return json.dumps({"refused": line}).encode()


def unpack_hello(payload: bytes) -> tuple[Declaration, tuple[str, ...]] | str:
    """The declaration and the functions in a message, or the refusal. Raises ValueError for anything else."""
    try:
        told = json.loads(payload)
        if "refused" in told:
            return str(told["refused"])
        given = told["declaration"]
        given |= {"profiles": {dtype: _profile(profile) for dtype, profile in given["profiles"].items()},
                  "conventions": {str(name): str(choice) for name, choice in given["conventions"].items()},
                  "unsupported": {op: tuple(map(str, features)) for op, features in given["unsupported"].items()}}
        given |= {name: tuple(map(str, given[name])) for name in ("dtypes", "layouts", "out")}
        return Declaration(**given), tuple(map(str, told["offers"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no declaration: {type(error).__name__}: {error}") from None


def _told(profile: str | Profile) -> Any:
    if isinstance(profile, str):
        return profile
    kind = next(name for name, made in reversed(PROFILES.items()) if isinstance(profile, made))
    return {kind: dataclasses.asdict(profile)}


def _profile(told: Any) -> str | Profile:
    if isinstance(told, str):
        return told
    ((kind, fields),) = told.items()
    return PROFILES[kind](**fields)
