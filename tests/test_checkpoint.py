import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from uhrjax import checkpoint, errors


@pytest.fixture
def state():
    params = {"backbone": {"kernel": jnp.arange(12.0).reshape(3, 4)}}
    optimize = optax.sgd(0.1, momentum=0.9)
    return checkpoint.TrainState(
        jnp.int32(0), params, {"norm": {"mean": jnp.ones(3)}}, optimize.init(params)
    )


def at(state, step):
    return state.replace(
        step=jnp.int32(step), params=jax.tree.map(lambda x: x + step, state.params)
    )


def test_latest_and_best_are_kept(tmp_path, state):
    store = checkpoint.CheckpointStore(tmp_path)
    for step, miou in [(1, 0.3), (2, None), (3, 0.9), (4, None), (5, 0.2), (6, None)]:
        store.save(at(state, step), {"classes": ["a"]}, miou)
    store.close()
    store = checkpoint.open_run(tmp_path)
    assert (store.latest, store.best) == (6, 3)
    kept = {p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()}
    assert kept == {"3", "6"}
    assert store.meta(3) == {"classes": ["a"], "step": 3, "miou": 0.9}
    store.close()


def test_restore_returns_every_bit(tmp_path, state):
    store = checkpoint.CheckpointStore(tmp_path)
    store.save(at(state, 7), {})
    store.wait()
    found = store.restore(7, state)
    store.close()
    jax.tree.map(np.testing.assert_array_equal, found, at(state, 7))


def test_read_variables_needs_no_knowledge_of_the_network(tmp_path, state):
    store = checkpoint.CheckpointStore(tmp_path)
    store.save(at(state, 2), {})
    store.wait()
    found = store.read_variables(2)
    store.close()
    assert set(found) == {"params", "batch_stats"}
    np.testing.assert_array_equal(
        found["params"]["backbone"]["kernel"], at(state, 2).params["backbone"]["kernel"]
    )


def test_damaged_checkpoint_is_named(tmp_path, state):
    store = checkpoint.CheckpointStore(tmp_path)
    store.save(at(state, 2), {})
    store.close()
    for path in (tmp_path / "checkpoints/2/params").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:10])
    store = checkpoint.open_run(tmp_path)
    with pytest.raises(errors.InputError, match="checkpoints/2 cannot be read"):
        store.restore(2, state)
    store.close()


def test_other_shapes_are_refused(tmp_path, state):
    store = checkpoint.CheckpointStore(tmp_path)
    store.save(state, {})
    store.wait()
    other = state.replace(params={"backbone": {"kernel": jnp.zeros((5, 4))}})
    with pytest.raises(errors.InputError, match="another network"):
        store.restore(0, other)
    store.close()


def test_full_disk_is_said_before_anything_is_written(tmp_path, state, monkeypatch):
    store = checkpoint.CheckpointStore(tmp_path)
    store.save(at(state, 1), {})
    store.wait()
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"no room for a checkpoint.*step 1"):
        store.save(at(state, 2), {})
    assert store.latest == 1
    store.close()


def test_folder_without_a_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        checkpoint.open_run(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        checkpoint.open_run(tmp_path)
