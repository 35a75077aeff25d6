"""Conformance: other implementations judged against the reference."""
