"""Correctly rounded results at the speed of arrays: a fast candidate, a bound on its error, and exact repair where the bound does not decide."""
