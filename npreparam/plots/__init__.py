"""Pictures, drawn with matplotlib's object interface (extra `plots`); every function returns a Figure."""

from npreparam.plots.figures import branch_kernels, images, loss_curves, reconstructions
from npreparam.plots.generative import gradient_histograms, tiles
from npreparam.plots.internals import bars, error_maps, histograms, kernel_maps, offset_table, roofline, tape_graph

__all__ = ["bars", "branch_kernels", "error_maps", "gradient_histograms", "histograms", "images", "kernel_maps", "loss_curves", "offset_table",
           "reconstructions", "roofline", "tape_graph", "tiles"]
