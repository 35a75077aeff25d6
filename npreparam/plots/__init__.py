"""Pictures, drawn with matplotlib's object interface (extra `plots`); every function returns a Figure."""

from npreparam.plots.figures import branch_kernels, images, loss_curves, reconstructions

__all__ = ["branch_kernels", "images", "loss_curves", "reconstructions"]
