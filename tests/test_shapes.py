import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npreparam import ArgumentError, ShapeError, Window
from npreparam._shapes import output_length, same_padding
from tests import naive


def test_output_length_exhaustive():
    for size, kernel, stride, before, after, dilation in itertools.product(range(6), range(1, 4), range(1, 4), range(3), range(3), range(1, 4)):
        assert output_length(size, kernel, stride, (before, after), dilation) == naive.output_length(size, kernel, stride, before, after, dilation)


@given(st.integers(1, 50), st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
def test_same_padding_gives_ceil_of_size_over_stride(size, kernel, stride, dilation, name):
    before, after = same_padding(size, kernel, stride, dilation, name)
    assert output_length(size, kernel, stride, (before, after), dilation) == -(-size // stride)
    assert after - before in ((0, 1) if name == "SAME_UPPER" else (0, -1))
    if before + after:  # no more padding than needed
        assert output_length(size, kernel, stride, (before, after - 1) if after else (before - 1, after), dilation) < -(-size // stride)


def test_same_padding_as_tensorflow_documents_it():
    """The example of tf.nn's padding notes: 13 inputs, kernel 6, stride 5 give 1 left, 2 right."""
    assert same_padding(13, 6, 5, 1, "SAME_UPPER") == (1, 2)
    assert same_padding(13, 6, 5, 1, "SAME_LOWER") == (2, 1)


@pytest.mark.parametrize(("padding", "sides"), [(1, ((1, 1), (1, 1))), ((1, 2), ((1, 1), (2, 2))), (((0, 1), (2, 3)), ((0, 1), (2, 3))),
                                                 ("VALID", ((0, 0), (0, 0))), ([1, 2], ((1, 1), (2, 2)))])
def test_every_form_of_padding(padding, sides):
    assert Window.of(3, padding=padding).padding == sides


@pytest.mark.parametrize(("arguments", "message"), [
    ({"kernel": 0}, r"`kernel` \(=0\) must be positive"),
    ({"kernel": 3, "stride": 0}, r"`stride` \(=0\) must be positive"),
    ({"kernel": 3, "stride": (1, -2)}, r"`stride` \(=-2\) must be positive"),
    ({"kernel": 3, "dilation": 0}, r"`dilation` \(=0\) must be positive"),
    ({"kernel": 3, "groups": 0}, r"`groups` \(=0\) must be positive"),
    ({"kernel": 3, "padding": -1}, r"`padding` \(=-1\) must not be negative"),
    ({"kernel": 3, "padding": ((0, 0), (0, -1))}, r"`padding` \(=-1\) must not be negative"),
    ({"kernel": 3, "padding": "SAME"}, "'SAME'.*SAME_UPPER, SAME_LOWER, VALID"),
    ({"kernel": 3, "padding": "SAME_UPPER"}, "depends on the input size"),
    ({"kernel": 3, "stride": 1.5}, r"`stride` \(=1.5\) must be an integer"),
    ({"kernel": 3, "stride": True}, r"`stride` \(=True\) must be an integer"),
    ({"kernel": (1, 2, 3)}, r"`kernel` \(=\(1, 2, 3\)\) must be an int or a pair"),
    ({"kernel": 3, "padding": (1, 2, 3)}, "must be an int or a pair"),
])
def test_bad_windows(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Window.of(**arguments)


def test_an_empty_output_names_the_axis():
    with pytest.raises(ShapeError, match=r"`width` \(=2\) plus padding 0\+0 must be at least the kernel's extent 5 \(kernel 3, dilation 2\)"):
        Window.of(3, dilation=2, stride=2).checked_output_size((9, 2))
