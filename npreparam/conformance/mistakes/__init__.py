"""The bank of known mistakes: wrong implementations by name, the smallest input that shows each, and targets that make them."""

from npreparam.conformance.mistakes import activation, batch_norm, batch_norm_grad, conv2d, conv2d_grad, fuse, linear, loss, memory, pool, sampling
from npreparam.conformance.mistakes._evaluate import balls, mistaken
from npreparam.conformance.mistakes._registry import MISTAKES, Mistake, mistake_named, mistakes_of
from npreparam.conformance.mistakes._trial import as_target, caught, pinned_cases, refused_mistakes

# importing them enters their rows
MODULES = (conv2d, conv2d_grad, memory, linear, batch_norm, batch_norm_grad, pool, fuse, activation, loss, sampling)

__all__ = ["MISTAKES", "Mistake", "as_target", "balls", "caught", "mistake_named", "mistaken", "mistakes_of", "pinned_cases",
           "refused_mistakes"]
