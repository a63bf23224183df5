"""Building blocks of procedural scenes, at awkward sizes."""

import numpy as np
import pytest

from data_builders.procedural import objects, paint, shapes


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_directions_have_unit_length():
    length = np.square(paint.directions(generator(), 500)).sum(axis=1)
    assert np.allclose(length, 1, atol=1e-12)


def test_choose_follows_the_shares():
    chosen = paint.choose(generator(), [0.5, 0.3, 0.2], 20_000)
    assert np.allclose(np.bincount(chosen) / 20_000, [0.5, 0.3, 0.2], atol=0.02)


@pytest.mark.parametrize("size", [1, 8, 77])
def test_noise_is_the_same_at_points_and_over_the_frame(size):
    noise = paint.Noise(generator(), size, 9.0)
    centre = np.arange(size, dtype=np.float32) + 0.5
    y, x = np.meshgrid(centre, centre, indexing="ij")
    frame = noise.frame(size, 100.0)
    assert frame.shape == (size, size)
    assert np.abs(frame - 100.0 * noise.at(y, x)).max() < 0.51


def test_noise_passes_through_its_grid_and_stays_in_range():
    noise = paint.Noise(generator(), 64, 16.0)
    grid = np.arange(5, dtype=np.float32) * 16
    assert np.array_equal(noise.at(grid, grid), np.diag(noise.grid)[:5])
    assert np.abs(noise.frame(64, 127.0)).max() <= 127


def test_fill_equals_the_formula_where_areas_are_larger_than_blocks():
    def half_planes(y, x):
        return ((3 * y + x > 90) + 2 * (y - 2 * x > 11)).astype(np.uint8)

    centre = np.arange(64, dtype=np.float32) + 0.5
    y, x = np.meshgrid(centre, centre, indexing="ij")
    assert np.array_equal(paint.fill(64, 8, half_planes), half_planes(y, x))


def test_nearest_blob_is_minus_one_outside():
    sites, radii = np.array([[5.0, 5.0], [5.0, 20.0]]), np.array([4.0, 6.0])
    y, x = np.array([5.0, 5.0, 15.0]), np.array([6.0, 15.0, 5.0])
    assert paint.nearest_blob(y, x, sites, radii).tolist() == [0, 1, -1]


@pytest.mark.parametrize("bend", [0.0, 0.75])
def test_walks_pass_the_middle_of_the_scene_and_end_outside(bend):
    for seed in range(20):
        points = paint.walk(generator(seed), 512, step=6.0, bend=bend)
        middle = points[len(points) // 2]
        assert (middle > 0.2 * 512 - 1).all() and (middle < 0.8 * 512 + 1).all()
        for end in (points[0], points[-1]):
            assert (end < 0).any() or (end > 512).any()


def test_strokes_have_their_width_and_are_cut_at_the_border():
    drawn = np.zeros((20, 20), bool)
    points = np.array([[10.0, -50.0], [10.0, 12.0], [10.0, 90.0]])
    for box, near in paint.stroke(20, points, 4.0):
        drawn[box] |= near
    assert np.array_equal(drawn.all(axis=1), drawn.any(axis=1))
    assert np.flatnonzero(drawn[:, 0]).tolist() == [8, 9, 10, 11]


def test_strokes_outside_the_scene_draw_nothing():
    points = np.array([[-40.0, -40.0], [-30.0, 70.0]])
    assert not list(paint.stroke(20, points, 4.0))


def test_stamps_paint_in_turn_and_are_cut_at_the_border():
    ids = np.zeros((16, 16), np.uint8)
    paint.stamp(
        ids,
        centres=np.array([[8.0, 8.0], [0.0, 0.0], [-30.0, 99.0]]),
        along=np.array([[0.0, 1.0]] * 3),
        half=np.array([[4.0, 2.0]] * 3),
        shape=lambda s, t: [*shapes.box(s, t), s > 2],
        parts=[np.array([1, 2, 3], np.uint8), np.array([9, 9, 9], np.uint8)],
    )
    assert np.argwhere(ids == 1).min(axis=0).tolist() == [6, 4]
    assert np.argwhere(ids == 1).max(axis=0).tolist() == [9, 11]
    assert (ids[:2, :4] == 2).all() and (ids == 2).sum() == 8
    assert not np.isin(ids, (3, 9)).any()


def test_rendering_softens_edges_and_keeps_zero_for_unknown():
    ids = np.zeros((9, 9), np.uint8)
    ids[:, 5:] = 1
    colours = np.zeros((256, 3), np.int16)
    colours[1] = 200
    image = paint.render(
        ids,
        generator(),
        colours=colours,
        textures=np.zeros((256, 4), np.int16),
        stripes=np.zeros((256, 2), np.int16),
        light_wave=5.0,
        light=0.0,
    )
    assert image[4, :, 0].tolist() == [1, 1, 1, 1, 50, 150, 200, 200, 200]


def test_rendering_in_bands_of_rows_leaves_no_seam(monkeypatch):
    colours = np.full((256, 3), 120, np.int16)
    looks = {
        "colours": colours,
        "textures": np.full((256, 4), paint.Texture(2, 4, 6, 8), np.int16),
        "stripes": np.full((256, 2), 17, np.int16),
        "light_wave": 30.0,
        "light": 9.0,
    }
    ids = np.zeros((2 * paint.BAND + 5,) * 2, np.uint8)
    image = paint.render(ids, generator(), **looks)
    monkeypatch.setattr(paint, "BAND", 1000)
    assert np.array_equal(image, paint.render(ids, generator(), **looks))


def test_crossings_are_found_and_parallel_lines_have_none():
    first = np.array([[0.0, 0.0], [10.0, 10.0], [20.0, 20.0]])
    second = np.array([[0.0, 8.0], [8.0, 0.0]])
    assert objects._crossings(first, second).tolist() == [[4.0, 4.0]]
    assert len(objects._crossings(first, first + 1.0)) == 0


def test_points_keep_their_distance_from_those_taken_before():
    points = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0], [9.0, 9.0]])
    assert objects._apart(points, 5.0).tolist() == [[0, 0], [0, 6], [9, 9]]
    assert len(objects._apart(points[:0], 5.0)) == 0
