"""One process of a run of several; prints what it found as JSON, on stderr.

python tests/several.py {work} {flags of uhrjax.main}
"""

import functools
import json
import os
import pathlib
import sys

import jax
import numpy as np

from uhrjax import (
    engine,
    errors,
    evaluate,
    hosts,
    main,
    methods,
    session,
    sources,
    trained,
)
from uhrjax.data import scenes

methods.METHODS["pixel"] = "pixel.PixelMethod"


def tell(**found):
    print("FOUND " + json.dumps(found), file=sys.stderr)


def message_of(work):
    try:
        work()
    except errors.InputError as error:
        return str(error)
    return ""


def talk(workdir):
    """What processes can tell each other."""
    index = jax.process_index()

    def prepare():
        (workdir / f"{index}.txt").write_text(str(len(list(workdir.glob("?.txt")))))
        return index

    def fail():
        if index == 1:
            raise errors.InputError("no scenes here")

    alone, seen = workdir / f"own{index}", (workdir, workdir / "nothing")
    tell(
        gathered=[
            [int(part["a"][0]), part["b"]]
            for part in hosts.gather({"a": np.array([2**53 + index]), "b": "x" * index})
        ],
        turn=[hosts.in_turn(prepare), (workdir / f"{index}.txt").read_text()],
        failed=message_of(lambda: hosts.in_turn(fail)),
        together=message_of(lambda: hosts.together(fail)),
        other=message_of(lambda: hosts.check_same("the split", f"s{index}", "copy it")),
        lost=message_of(lambda: hosts.check_there(seen[index])),
        there=message_of(lambda: hosts.check_there(workdir)),
        lists=message_of(lambda: predict_lists(workdir, index)),
        shared=message_of(lambda: hosts.check_shared(workdir / "both")),
        unshared=message_of(lambda: hosts.check_shared(alone)),
    )


def predict_lists(workdir, index):
    """Asks every process for other files."""
    session.predict(workdir, [], f"{workdir}/masks/val[{index}2].png", f"{workdir}/x")


def end(work, *_):
    """Stands in for a training: process 1 is lost, or a bug ends it."""
    if jax.process_index() == 0:
        hosts.wait()
    if work == "lose":
        os._exit(9)
    raise RuntimeError("a bug")


def label_one_scene(workdir):
    """Labels the first scene to validate on, as an evaluation of it alone would."""
    run = trained.load_run(workdir)
    data = sources.open_data(run.config)
    reader = data.open_scenes("val")
    shown = [scenes.PreparedScene(reader, 0)]
    label = engine.make_engine(run.method, run.config)
    found = list(evaluate.predict_scenes(label, run.variables, shown))
    tell(alone=[scene.labels.tolist() for scene in found])


def everything(workdir, images):
    """Trains, scores again and labels files."""
    code = main.main(sys.argv)
    code += session.evaluate(workdir, ["--config.eval.protocol=crops"], f"{workdir}/c")
    one = f"{images}/val0.png"
    code += session.predict(workdir, [], one, f"{workdir}/joint")
    code += session.predict(workdir, [], one, f"{workdir}/joint")  # is there already
    broken = workdir / "broken"
    code += session.predict(workdir, [], f"{images}/*.png", f"{workdir}/labelled")
    if hosts.is_first():
        broken.mkdir()
        (broken / "a.png").write_bytes(b"")
        (broken / "b.png").write_bytes(b"")
    hosts.wait()
    tell(
        code=code,
        broken=session.predict(workdir, [], str(broken), f"{workdir}/no"),
        lonely=session.predict(workdir, [], f"{broken}/a.png", f"{workdir}/no"),
    )
    label_one_scene(workdir)
    talk(workdir)


if __name__ == "__main__":
    work, *sys.argv[1:] = sys.argv[1:]
    if work == "everything":
        given = dict(word.split("=", 1) for word in sys.argv[1:])
        folder = pathlib.Path(given["--workdir"])
        everything(folder, given["--config.data.dir"] + "/val/images")
    elif work in ("lose", "fail"):
        session.train = functools.partial(end, work)
        main.run()
    else:
        code = main.run()
        tell(code=code)
