"""Correctly rounded results at array speed, and how far an honest implementation may be from them."""
