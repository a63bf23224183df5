"""Configs of single stages."""

import pytest

from uhrjax import config, errors


def recipe():
    return config.load_config("configs/fctl.py:deepglobe")


def test_stage_gets_changes_then_its_own_keys():
    base = recipe()
    with base.unlocked():
        base.stages.fcn.epochs = 7
    changed = config.for_stage(base, "fcn", {"epochs": 5, "model.contexts": ()})
    assert (changed.epochs, changed.sub_batch, changed.model.contexts) == (7, 6, ())
    assert changed.stage == "fcn" and not changed.stages and not changed.refiner
    assert (base.epochs, base.sub_batch) == (50, 4)


def test_stage_may_replace_a_whole_group():
    changed = config.for_stage(recipe(), "refine", {"model": {"width": 3}})
    assert changed.model.to_dict() == {"width": 3}


def test_unknown_key_of_a_stage_is_refused():
    with pytest.raises(errors.InputError, match="unknown config key 'epoch'"):
        config.for_stage(recipe(), "fcn", {"epoch": 5})


def test_any_key_may_differ_in_a_stage_by_flag():
    flags = ["--config.stages.all.eval.every=3", "--config.stages.fcn.epochs=2"]
    changed = config.override(recipe(), flags)
    assert config.for_stage(changed, "all", {}).eval.every == 3
    assert config.for_stage(changed, "fcn", {}).epochs == 2
    assert config.for_stage(changed, "fcn", {}).sub_batch == 6
    assert changed.epochs == 50 and changed.eval.every == 5


def test_unknown_key_of_a_stage_by_flag_is_refused():
    with pytest.raises(errors.InputError, match="unknown config key 'epoch'"):
        config.override(recipe(), ["--config.stages.all.epoch=3"])
