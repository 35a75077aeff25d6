"""Autodiff-lite: an eager tape over NumPy arrays that holds no formulas; those live in `npreparam.ops`."""

from npreparam.tape.check import check_grads
from npreparam.tape.grad import grad
from npreparam.tape.tensor import Tensor
from npreparam.tape.transform import jvp, value_and_grad, vjp

__all__ = ["Tensor", "check_grads", "grad", "jvp", "value_and_grad", "vjp"]
