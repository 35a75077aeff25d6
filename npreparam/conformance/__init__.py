"""Conformance: other implementations judged against the reference."""

from npreparam.conformance.assertions import assert_conforms
from npreparam.conformance.case import Case, Key, Level, Verdict
from npreparam.conformance.judge import judge_case
from npreparam.conformance.target import Declaration, Target

__all__ = ["Case", "Declaration", "Key", "Level", "Target", "Verdict", "assert_conforms", "judge_case"]
