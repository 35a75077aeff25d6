"""What a recognised expression computes: a plain interpreter in float64, which shares no code with the package's own algebra."""

import numpy as np

from npreparam.checkpoints import expression as e


def evaluate(expression, tensors, x, eps=1e-5):
    """Apply an expression to x (batch, channels, height, width)."""
    def tensor(name):
        return np.asarray(tensors[name], np.float64)

    def per_channel(value):
        return value.reshape(-1, 1, 1)

    match expression:
        case e.Sum():
            return sum(evaluate(term, tensors, x, eps) for term in expression.terms)
        case e.Sequence():
            for step in expression.steps:
                x = evaluate(step, tensors, x, eps)
            return x
        case e.Identity():
            return x
        case e.Concat():
            return np.concatenate([evaluate(term, tensors, x, eps) for term in expression.terms], 1)
        case e.Slice():
            return x[:, expression.first : expression.first + expression.count]
        case e.Shuffle():
            per_group = x.shape[1] // expression.groups
            return x[:, [group * per_group + i for i in range(per_group) for group in range(expression.groups)]]
        case e.OnGrid():
            y = np.empty((len(x), 0))
            for i, j in np.ndindex(*x.shape[2:]):
                image = evaluate(expression.term, tensors, x[:, :, i, j].reshape(len(x), -1, *expression.size), eps).reshape(len(x), -1)
                y = np.concatenate([y, image], 1)
            return y.reshape(len(x), *x.shape[2:], -1).transpose(0, 3, 1, 2)
        case e.Pad():
            h, w = expression.amount
            x = np.pad(x, ((0, 0), (0, 0), (max(h, 0),) * 2, (max(w, 0),) * 2))
            return x[:, :, max(-h, 0) : x.shape[2] - max(-h, 0), max(-w, 0) : x.shape[3] - max(-w, 0)]
        case e.Scale():
            rows = slice(None) if expression.row is None else expression.row
            scale = per_channel(tensor(expression.weight)[rows]) if expression.weight else 1
            shift = per_channel(tensor(expression.bias)) if expression.bias else 0
            return expression.number * scale * x + shift
        case e.BatchNorm():
            scale = 1 / np.sqrt(tensor(expression.var) + (expression.eps if expression.eps is not None else eps))
            scale = scale * tensor(expression.weight) if expression.weight else scale
            shift = tensor(expression.bias) if expression.bias else 0
            return per_channel(scale) * (x - per_channel(tensor(expression.mean))) + per_channel(np.broadcast_to(shift, scale.shape))
        case e.AvgPool():
            mean = np.full((x.shape[1], 1, *expression.kernel), 1 / np.prod(expression.kernel))
            return correlate(x, mean, (0, 0), expression.stride or 1, 1, x.shape[1])
        case e.Conv():
            kernel = tensor(expression.weight)
            kernel = kernel.reshape(*kernel.shape, 1, 1) if kernel.ndim == 2 else kernel
            kernel = kernel * tensor(expression.factor) if expression.factor else kernel
            if expression.shape:
                window = tensor(expression.shape)
                kernel = np.einsum("oi,ohw->oihw", kernel[:, :, 0, 0], np.broadcast_to(window, (len(kernel), *window.shape[-2:])))
            groups = expression.groups or x.shape[1] // kernel.shape[1]
            if expression.in_turn:  # row o*groups + g is the o-th output of group g
                kernel = np.concatenate([kernel[group::groups] for group in range(groups)])
            y = correlate(x, kernel, expression.padding or (0, 0), expression.stride or 1, expression.dilation or 1, groups)
            return y + per_channel(tensor(expression.bias)) if expression.bias else y
    raise TypeError(expression)


def correlate(x, kernel, padding, stride, dilation, groups):
    """Grouped cross-correlation, one tap at a time."""
    x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    outputs, per_group, kh, kw = kernel.shape
    height, width = ((n - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(x.shape[2:], (kh, kw), strict=True))
    y = np.zeros((len(x), outputs, height, width))
    for o in range(outputs):
        start = o // (outputs // groups) * per_group
        for i in range(kh):
            for j in range(kw):
                part = x[:, start : start + per_group, i * dilation :, j * dilation :][:, :, ::stride, ::stride][:, :, :height, :width]
                y[:, o] += np.einsum("nchw,c->nhw", part, kernel[o, :, i, j])
    return y
