"""Stages that rows have in common are copied, and only those."""

import pytest
from table_runs import recipe_of, write_run

from uhrjax.tables import result, share


@pytest.fixture
def adaptive(tmp_path):
    """A finished run of FCtL's adaptive fusion, with checkpoints."""
    training = recipe_of("fctl", "5", "fusion: adaptive").training
    folder = tmp_path / "adaptive"
    write_run(folder, training)
    for step in training.plan:
        (folder / step.name / "checkpoints").mkdir()
    return training, folder


def taken(training, tmp_path, *, seed=0):
    return share.take(training, seed, tmp_path / "new", result.scan(tmp_path))


def test_another_fusion_takes_all_stages_but_the_last(adaptive, tmp_path, capsys):
    own, folder = adaptive
    other = recipe_of("fctl", "5", "fusion: averaging").training
    names = taken(other, tmp_path)
    assert names == tuple(step.name for step in own.plan[:-1])
    assert len(names) >= 3
    for name in names:
        first, second = (place / name for place in (folder, tmp_path / "new"))
        assert (second / "report.json").read_text() == (
            first / "report.json"
        ).read_text()
        assert (second / "checkpoints").is_dir()
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(names)
    assert f"{', '.join(names)} are those of {folder}" in capsys.readouterr().out


def test_another_seed_takes_nothing(adaptive, tmp_path):
    other = recipe_of("fctl", "5", "fusion: averaging").training
    assert taken(other, tmp_path, seed=1) == ()
    assert not (tmp_path / "new").exists()


def test_stages_before_the_first_difference_are_taken(adaptive, tmp_path):
    other = recipe_of("fctl", "3", "contexts: local").training
    assert taken(other, tmp_path) == ("pretrain", "fcn")  # "local" is its last


def test_what_has_begun_is_left_alone(adaptive, tmp_path):
    (tmp_path / "new" / "pretrain").mkdir(parents=True)
    other = recipe_of("fctl", "5", "fusion: averaging").training
    assert taken(other, tmp_path) == ()


def test_a_stage_without_checkpoints_is_not_taken(adaptive, tmp_path):
    _, folder = adaptive
    (folder / "fcn" / "checkpoints").rmdir()
    other = recipe_of("fctl", "5", "fusion: averaging").training
    assert taken(other, tmp_path) == ("pretrain",)


def test_learned_fields_of_view_share_their_first_stage(tmp_path):
    mean = recipe_of("foveation", "2", "Foveation-Mean").training
    write_run(tmp_path / "mean", mean)
    (tmp_path / "mean" / "pretrain" / "checkpoints").mkdir()
    other = recipe_of("foveation", "2", "Foveation-GSM").training
    assert taken(other, tmp_path) == ("pretrain",)
