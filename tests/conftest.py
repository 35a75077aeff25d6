"""Hypothesis profile: no deadline (kernels compile on first use), and the same examples on every run."""

from hypothesis import HealthCheck, settings

settings.register_profile("npreparam", deadline=None, derandomize=True, database=None, print_blob=True, max_examples=60,
                          suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("npreparam")
