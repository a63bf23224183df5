"""Masks become labels by value or by colour; what is unknown is reported."""

import numpy as np
import pytest

from data_builders import label as labels

TABLE = labels.table(["a", "b"], [(0, 0, 0), (255, 0, 10)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32])
def test_ids_of_any_integer_type_decode(dtype):
    raw = np.array([[0, 1, 255], [1, 1, 0]], dtype)
    decoded, unknown = TABLE.decode(raw)
    assert decoded.dtype == np.uint8 and not unknown
    assert decoded.tolist() == raw.tolist()


def test_ids_beyond_a_byte_are_found_and_never_wrap():
    raw = np.array([[256, 1], [-1, 257]], np.int32)
    decoded, unknown = TABLE.decode(raw)
    assert decoded.tolist() == [[255, 1], [255, 255]]
    assert unknown == [(-1, 1, 1, 0), (256, 1, 0, 0), (257, 1, 1, 1)]


def test_large_ids_can_be_classes():
    table = labels.ClassTable(("a", "b"), ((0, 0, 0),) * 2, {7000: 0, 41: 1})
    assert table.decode(np.array([[41, 7000]], np.uint16))[0].tolist() == [[1, 0]]


def test_colours_decode_and_unknown_ones_are_counted_with_their_first_pixel():
    raw = np.zeros((3, 4, 3), np.uint8)
    raw[1, 2] = (255, 0, 10)
    raw[2, 1:3] = (1, 2, 3)
    decoded, unknown = TABLE.decode(raw)
    assert decoded[1, 2] == 1 and decoded[0, 0] == 0 and decoded[2, 1] == 255
    assert unknown == [((1, 2, 3), 2, 2, 1)]


def test_unknown_values_can_be_given_a_class():
    table = labels.table(["a", "b"], [(0, 0, 0), (1, 1, 1)], unknown=0)
    decoded, unknown = table.decode(np.full((1, 1, 3), 9, np.uint8))
    assert decoded.tolist() == [[0]] and unknown[0].count == 1


def test_drawing_colours_differ():
    colours = labels.palette(255)
    assert len(set(colours)) == 255
    assert colours[:2] == ((0, 0, 0), (128, 0, 0))


def test_packing_a_colour_can_be_undone():
    assert labels.unpack(labels.pack((1, 20, 255))) == (1, 20, 255)
