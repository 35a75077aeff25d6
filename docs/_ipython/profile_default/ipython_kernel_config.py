"""What the kernels of the pages start with: figures are shown as SVG, with their text as text."""

c = get_config()  # noqa: F821  (given by IPython)
c.IPKernelApp.matplotlib = "inline"
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.print_figure_kwargs = {"bbox_inches": "tight", "facecolor": "white", "metadata": {"Date": None}}
c.InteractiveShellApp.exec_lines = [
    "import os, numpy as np",
    "np.set_printoptions(precision=4, suppress=True, linewidth=92)",
    "[os.environ.pop(name, None) for name in ('FORCE_COLOR', 'CLICOLOR_FORCE')]",  # of the kernel: a cell's commands draw no progress bars
    "del np, os",
]
