import numpy as np
import pytest

from uhrjax.tiling import canvas, window


@pytest.mark.parametrize("height, width", [(1, 1), (7, 8), (8, 8), (9, 17), (31, 5)])
@pytest.mark.parametrize("stride", [3, 8])
def test_strip_canvas_equals_summing_the_whole_scene(height, width, stride):
    rng = np.random.default_rng(height * 100 + width)
    windows = window.plan_windows(height, width, tile=8, stride=stride)
    total = np.zeros((height + 8, width + 8, 3), np.float32)
    out = np.full((height, width), 9, np.uint8)
    strip = canvas.StripCanvas(out, tile=8, num_classes=3)
    for place in windows:
        scores = rng.random((8, 8, 3), np.float32)
        strip.add(place, scores)
        total[place.top : place.top + 8, place.left : place.left + 8] += scores
    strip.finish()
    np.testing.assert_array_equal(out, total[:height, :width].argmax(-1))
