"""Shared by all tests: compiled programs are kept, and a tiny data set of our own."""

import os
import pathlib

import cv2
import jax
import pytest
from tiny_run import METHODS, arguments, draw_scene

ROOT = pathlib.Path(__file__).parent.parent
CACHE = pathlib.Path(
    os.environ.get("JAX_COMPILATION_CACHE_DIR")
    or pathlib.Path("~/.cache/uhrjax/compiled-tests").expanduser()
)
# Most of the time here goes into compiling what runs once or twice: compile fast, run
# slowly. Child processes inherit this; flags that XLA does not know would end them.
FAST = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    FAST += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{FAST} {os.environ.get('XLA_FLAGS', '')}".strip()
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE)  # for child processes, too
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    """Config paths of the tests are relative to the root."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> pathlib.Path:
    """A folder data set: 4 scenes to train, 3 of odd sizes to validate."""
    root = tmp_path_factory.mktemp("squares")
    sizes = {"train": [(64, 96)] * 4, "val": [(75, 50), (33, 90), (1, 1)]}
    for split, shapes in sizes.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for i, (height, width) in enumerate(shapes):
            image, label = draw_scene(len(split) * 10 + i, height, width)
            name = f"{split}{i}.png"
            cv2.imwrite(str(root / split / "images" / name), image[..., ::-1])
            cv2.imwrite(str(root / split / "masks" / name), label)
    (root / "classes.json").write_text(
        '{"classes": [{"name": "ground", "id": 0}, {"name": "square", "id": 1}]}'
    )
    return root


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> pathlib.Path:
    """Where the tests prepare their data sets."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture(scope="session")
def programs():
    """Every compiled step and prediction of the runs below."""
    return []


@pytest.fixture(scope="session")
def runs(squares, data_root, tmp_path_factory, programs):
    """One uninterrupted run of every method."""
    from uhrjax import inference, main, update

    folder = tmp_path_factory.mktemp("runs")
    make_update, make_engine = update.Update, inference.Engine

    def noted_update(*given):
        made = make_update(*given)
        programs.append(made._step)
        return made

    def noted_engine(*given):
        engine = make_engine(*given)
        programs.append(engine.run_windows)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update, "Update", noted_update)
        patch.setattr(inference, "Engine", noted_engine)
        for method in METHODS:
            main.main(arguments(method, squares, data_root, folder / method))
    return folder
