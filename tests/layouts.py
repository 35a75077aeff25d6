"""The same values in other memory: what must not change a bit of any result."""

import numpy as np


def layouts(array):
    """(name, array) with the values of an NCHW float array."""
    yield "F", np.asfortranarray(array)
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), np.nan, array.dtype)
    wide[..., ::2] = array
    yield "strided", wide[..., ::2]
    yield "negative strides", np.ascontiguousarray(array[::-1, :, ::-1])[::-1, :, ::-1]
    yield "channels last", np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
    frozen = array.copy()
    frozen.flags.writeable = False
    yield "read-only", frozen
    shifted = np.frombuffer(bytearray(1) + array.tobytes(), np.uint8)[1:].view(array.dtype).reshape(array.shape)
    yield "unaligned", shifted
    yield "byte-swapped", array.astype(array.dtype.newbyteorder())
