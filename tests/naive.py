"""Loop-nest twins of the library's functions, straight from their definitions. This file imports nothing of npreparam."""

import itertools

import numpy as np


def output_length(size, kernel, stride, before, after, dilation):
    count, first = 0, -before
    while first + dilation * (kernel - 1) < size + after:
        count += 1
        first += stride
    return count


def conv_terms(x_shape, w_shape, stride, padding, dilation, groups):
    """Every (y index, x index, w index) that a convolution multiplies; padding is ((top, bottom), (left, right))."""
    (n, _, h, wd), (co, ci, kh, kw) = x_shape, w_shape
    ho = output_length(h, kh, stride[0], *padding[0], dilation[0])
    wo = output_length(wd, kw, stride[1], *padding[1], dilation[1])
    for b, o, r, q in itertools.product(range(n), range(co), range(ho), range(wo)):
        group = o // (co // groups)
        for i, a, e in itertools.product(range(ci), range(kh), range(kw)):
            y, x = r * stride[0] + a * dilation[0] - padding[0][0], q * stride[1] + e * dilation[1] - padding[1][0]
            if 0 <= y < h and 0 <= x < wd:
                yield (b, o, r, q), (b, group * ci + i, y, x), (o, i, a, e)


def conv_output_shape(x_shape, w_shape, stride, padding, dilation):
    return (x_shape[0], w_shape[0], output_length(x_shape[2], w_shape[2], stride[0], *padding[0], dilation[0]),
            output_length(x_shape[3], w_shape[3], stride[1], *padding[1], dilation[1]))


def conv2d(x, w, b, stride, padding, dilation, groups):
    y = np.zeros(conv_output_shape(x.shape, w.shape, stride, padding, dilation), x.dtype)
    for at_y, at_x, at_w in conv_terms(x.shape, w.shape, stride, padding, dilation, groups):
        y[at_y] += w[at_w] * x[at_x]
    return y if b is None else y + b.reshape(1, -1, 1, 1)


def conv2d_input_grad(gy, w, x_shape, stride, padding, dilation, groups):
    gx = np.zeros(x_shape, gy.dtype)
    for at_y, at_x, at_w in conv_terms(x_shape, w.shape, stride, padding, dilation, groups):
        gx[at_x] += w[at_w] * gy[at_y]
    return gx


def conv2d_weight_grad(gy, x, w_shape, stride, padding, dilation, groups):
    gw = np.zeros(w_shape, gy.dtype)
    for at_y, at_x, at_w in conv_terms(x.shape, w_shape, stride, padding, dilation, groups):
        gw[at_w] += gy[at_y] * x[at_x]
    return gw


def im2col(x, kernel, stride, padding, dilation):
    n, c, h, w = x.shape
    ho = output_length(h, kernel[0], stride[0], *padding[0], dilation[0])
    wo = output_length(w, kernel[1], stride[1], *padding[1], dilation[1])
    columns = np.zeros((n, c * kernel[0] * kernel[1], ho * wo), x.dtype)
    for b, i, a, e, r, q in itertools.product(range(n), range(c), range(kernel[0]), range(kernel[1]), range(ho), range(wo)):
        y, z = r * stride[0] + a * dilation[0] - padding[0][0], q * stride[1] + e * dilation[1] - padding[1][0]
        if 0 <= y < h and 0 <= z < w:
            columns[b, (i * kernel[0] + a) * kernel[1] + e, r * wo + q] = x[b, i, y, z]
    return columns


def col2im(columns, shape, kernel, stride, padding, dilation):
    n, c, h, w = shape
    ho = output_length(h, kernel[0], stride[0], *padding[0], dilation[0])
    wo = output_length(w, kernel[1], stride[1], *padding[1], dilation[1])
    x = np.zeros(shape, columns.dtype)
    for b, i, a, e, r, q in itertools.product(range(n), range(c), range(kernel[0]), range(kernel[1]), range(ho), range(wo)):
        y, z = r * stride[0] + a * dilation[0] - padding[0][0], q * stride[1] + e * dilation[1] - padding[1][0]
        if 0 <= y < h and 0 <= z < w:
            x[b, i, y, z] += columns[b, (i * kernel[0] + a) * kernel[1] + e, r * wo + q]
    return x


def matmul(a, b):
    y = np.zeros((a.shape[0], b.shape[1]), a.dtype)
    for m, n, k in itertools.product(range(a.shape[0]), range(b.shape[1]), range(a.shape[1])):
        y[m, n] += a[m, k] * b[k, n]
    return y


def linear(x, w, b):
    y = np.zeros((x.shape[0], w.shape[0]), x.dtype)
    for n, o, i in itertools.product(range(x.shape[0]), range(w.shape[0]), range(x.shape[1])):
        y[n, o] += x[n, i] * w[o, i]
    return y if b is None else y + b


def moments(x):
    """Mean and biased variance of each channel of an NCHW array, as two lists."""
    means, variances = [], []
    for c in range(x.shape[1]):
        values = [float(v) for v in x[:, c].ravel()]
        mean = sum(values) / len(values)
        means.append(mean)
        variances.append(sum((v - mean) ** 2 for v in values) / len(values))
    return np.array(means), np.array(variances)


def batch_norm(x, gamma, beta, mean, var, eps):
    y = np.zeros(x.shape, x.dtype)
    for at in itertools.product(*map(range, x.shape)):
        c = at[1]
        y[at] = (x[at] - mean[c]) / np.sqrt(var[c] + eps) * gamma[c] + beta[c]
    return y


def batch_norm_train(x, gamma, beta, running_mean, running_var, momentum, eps):
    """(y, running_mean, running_var): normalised by the biased variance, updated with the unbiased one; momentum weighs what is new."""
    mean, var = moments(x)
    n = x.size // x.shape[1]
    return (batch_norm(x, gamma, beta, mean, var, eps), (1 - momentum) * running_mean + momentum * mean,
            (1 - momentum) * running_var + momentum * var * n / (n - 1))


def windows(shape, kernel, stride, padding):
    """Every (y index, list of x indices under the window) of a pooling."""
    n, c, h, w = shape
    ho = output_length(h, kernel[0], stride[0], *padding[0], 1)
    wo = output_length(w, kernel[1], stride[1], *padding[1], 1)
    for b, i, r, q in itertools.product(range(n), range(c), range(ho), range(wo)):
        under = [(b, i, r * stride[0] + a - padding[0][0], q * stride[1] + e - padding[1][0])
                 for a in range(kernel[0]) for e in range(kernel[1])]
        yield (b, i, r, q), [at for at in under if 0 <= at[2] < h and 0 <= at[3] < w]


def avg_pool2d(x, kernel, stride, padding, counted):
    shape = (*x.shape[:2], output_length(x.shape[2], kernel[0], stride[0], *padding[0], 1),
             output_length(x.shape[3], kernel[1], stride[1], *padding[1], 1))
    y = np.zeros(shape, x.dtype)
    for at, under in windows(x.shape, kernel, stride, padding):
        y[at] = sum(x[i] for i in under) / (kernel[0] * kernel[1] if counted else len(under))
    return y


def max_pool2d(x, kernel, stride, padding):
    """The pooled array, and where each maximum was found first."""
    shape = (*x.shape[:2], output_length(x.shape[2], kernel[0], stride[0], *padding[0], 1),
             output_length(x.shape[3], kernel[1], stride[1], *padding[1], 1))
    y, where = np.zeros(shape, x.dtype), {}
    for at, under in windows(x.shape, kernel, stride, padding):
        best = under[0]
        for i in under[1:]:
            if x[i] > x[best] or (np.isnan(x[i]) and not np.isnan(x[best])):
                best = i
        y[at], where[at] = x[best], best
    return y, where


def avg_pool2d_grad(gy, x_shape, kernel, stride, padding, counted):
    gx = np.zeros(x_shape, gy.dtype)
    for at, under in windows(x_shape, kernel, stride, padding):
        for i in under:
            gx[i] += gy[at] / (kernel[0] * kernel[1] if counted else len(under))
    return gx


def global_avg_pool(x):
    y = np.zeros(x.shape[:2], x.dtype)
    for b, i in itertools.product(*map(range, x.shape[:2])):
        y[b, i] = sum(x[b, i].ravel()) / x[b, i].size
    return y


def global_avg_pool_grad(gy, x_shape):
    gx = np.zeros(x_shape, gy.dtype)
    for at in itertools.product(*map(range, x_shape)):
        gx[at] = gy[at[:2]] / (x_shape[2] * x_shape[3])
    return gx


def max_pool2d_grad(gy, x, kernel, stride, padding):
    gx = np.zeros(x.shape, gy.dtype)
    for at, best in max_pool2d(x, kernel, stride, padding)[1].items():
        gx[best] += gy[at]
    return gx


def batch_norm_grad(gy, x, gamma, mean, var, eps, training):
    """(gx, ggamma, gbeta) by the chain rule through every element: dy[i]/dx[j] with the dependence of mean and variance written out."""
    gx, ggamma, gbeta = np.zeros(x.shape), np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for c in range(x.shape[1]):
        places = [at for at in itertools.product(*map(range, x.shape)) if at[1] == c]
        m, std = len(places), np.sqrt(var[c] + eps)
        for i in places:
            centered = x[i] - mean[c]
            ggamma[c] += gy[i] * centered / std
            gbeta[c] += gy[i]
            gx[i] += gy[i] * gamma[c] / std
            for j in places if training else []:
                dmean, dvar = 1 / m, 2 * (x[j] - mean[c]) / m
                gx[j] += gy[i] * gamma[c] * (-dmean / std - centered * dvar / (2 * std**3))
    return gx, ggamma, gbeta


def affine_conv(x, taps, matrices, bias, stride, slack, outside, transposed=False):
    """The defining sum of an affine shift-equivariant map of one input (channels, *lengths), any number of axes; matrices are (taps, O, I)."""
    size = x.shape[1:]
    axes = list(zip(size, stride, slack, strict=True))
    out = tuple((n - 1) * s + c if transposed else max(0, (n + c) // s + 1) for n, s, c in axes)
    y = np.zeros((len(bias), *out), x.dtype)
    for o, *place in itertools.product(range(len(bias)), *map(range, out)):
        y[(o, *place)] = bias[o]
    if transposed:
        for place in itertools.product(*map(range, size)):
            for tap, matrix in zip(taps, matrices, strict=True):
                at = tuple(s * j + t for s, j, t in zip(stride, place, tap, strict=True))
                if all(0 <= a < n for a, n in zip(at, out, strict=True)):
                    y[(slice(None), *at)] += matrix @ x[(slice(None), *place)]
        return y
    for place in itertools.product(*map(range, out)):
        for tap, matrix in zip(taps, matrices, strict=True):
            at = tuple(s * j + t for s, j, t in zip(stride, place, tap, strict=True))
            inside = all(0 <= a < n for a, n in zip(at, size, strict=True))
            y[(slice(None), *place)] += matrix @ (x[(slice(None), *at)] if inside else outside)
    return y


def dense_matrix(block, groups):
    """The full matrix of rows (O, I/groups) that each see the input channels of their own group."""
    outputs, inputs = block.shape
    full = np.zeros((outputs, inputs * groups), block.dtype)
    for o, i in itertools.product(range(outputs), range(inputs)):
        full[o, o // (outputs // groups) * inputs + i] = block[o, i]
    return full


def scale_shift(x, scale, shift):
    y = np.zeros(x.shape, x.dtype)
    for at in itertools.product(*map(range, x.shape)):
        y[at] = scale[at[1]] * x[at] + shift[at[1]]
    return y


def pad(x, sides, constant):
    """An NCHW array with constant[channel] around it."""
    (top, bottom), (left, right) = sides
    n, c, h, w = x.shape
    y = np.zeros((n, c, top + h + bottom, left + w + right), x.dtype)
    for b, i, r, q in itertools.product(*map(range, y.shape)):
        inside = 0 <= r - top < h and 0 <= q - left < w
        y[b, i, r, q] = x[b, i, r - top, q - left] if inside else constant[i]
    return y
