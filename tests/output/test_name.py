"""Names of output files."""

import drawn_scene
import pytest
from drawn_scene import open_writer, scene

from uhrjax import errors, output


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        ([], []),
        (["x/a.tif", "y/b.tif"], ["a", "b"]),
        (["a.tif", "a.png", "b.png"], ["a_tif", "a_png", "b"]),
        (["A.tif", "a.png"], ["A_tif", "a_png"]),
        (["x/a.tif", "y/a.tif"], ["x_a_tif", "y_a_tif"]),
        (["/x/a.tif", "/a.tif"], ["x_a_tif", "a_tif"]),
        (["a.tif", "a.png", "a_tif.jpg"], ["a_tif", "a_png", "a_tif_jpg"]),
        (["a", "a.png"], ["a", "a_png"]),
    ],
)
def test_distinct_names_keep_what_tells_the_inputs_apart(paths, names):
    assert output.distinct_names(paths) == names


def test_distinct_names_refuse_the_same_input_twice():
    with pytest.raises(errors.InputError, match=r"hold x/a\.tif twice"):
        output.distinct_names(["x/a.tif", "x/a.tif"])


@pytest.mark.parametrize("name", ["", ".hidden"])
def test_scene_without_a_usable_name_is_refused(tmp_path, name):
    with pytest.raises(errors.InputError, match="gives no file name"):
        open_writer(tmp_path, scene(2, 2, name=name))


def test_more_classes_than_a_byte_holds_are_refused(tmp_path):
    names = [str(i) for i in range(256)]
    with pytest.raises(errors.InputError, match="at most 255 classes"):
        output.SceneWriter(
            tmp_path, scene(2, 2), names, [(0, 0, 0)] * 256, output.OutputOptions(),
            fingerprint="f", source=None,
        )  # fmt: skip


def test_slash_in_a_scene_id_makes_no_folder(tmp_path):
    files = drawn_scene.write(
        tmp_path, scene(2, 2, name="a/b"), drawn_scene.draw_labels(2, 2)
    )
    assert files["labels"] == tmp_path / "a_b.png"
