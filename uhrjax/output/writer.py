"""Writes one scene row by row; a stopped run goes on from its last finished row."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from uhrjax import errors
from uhrjax.data import prepared
from uhrjax.output import certainty, failure, geotiff, mask, name, overlay, partial
from uhrjax.output import legend as legend_lib
from uhrjax.output import options as options_lib
from uhrjax.output import polygon as polygon_lib

PARTIAL = ".partial"
SURVEY_PIXELS = 1 << 22  # counted at a time; below 2^24, where float32 counts are exact
MEANINGS = {
    "entropy": "entropy of the class probabilities / log(number of classes)",
    "margin": "1 - (largest probability - second largest)",
}


class SceneWriter:
    """The output of one scene; rows come in order and from one thread.

    Finished rows lie raw in `<folder>/.partial/<name>/`. `finish` encodes them there,
    renames the files to their final names and writes the record `<name>.json` last.

    Args:
        folder: made if absent.
        info: name, size and place of the scene.
        classes: names, at most 255.
        colours: RGB of the classes.
        options: which files are written.
        fingerprint: of everything the result depends on (weights, input, settings);
            only rows and files of the same fingerprint are used again.
        source: the input file; it is never overwritten.
        nodata_label: label of pixels without a class.

    Attributes:
        rows_done: rows that need not be computed again.
        is_complete: whether the files exist already, complete.
        record: what `<name>.json` holds, of a complete scene.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        info: prepared.SceneInfo,
        classes: Sequence[str],
        colours: Sequence[tuple[int, int, int]],
        options: options_lib.OutputOptions,
        *,
        fingerprint: str,
        source: pathlib.Path | None,
        nodata_label: int = 255,
    ):
        options_lib.check_libraries(info, options)
        if len(classes) > nodata_label:
            raise errors.InputError(
                f"{len(classes)} classes do not fit below the nodata label "
                f"{nodata_label}; a label map holds at most 255 classes"
            )
        self._scene, self._options = info, options
        self._legend = legend_lib.Legend(
            tuple(classes), tuple(tuple(colour) for colour in colours), nodata_label
        )
        self._folder = pathlib.Path(folder)
        stem = name.stem_of(info)
        files = name.plan_files(info, options)
        self._paths = {kind: self._folder / file for kind, file in files.items()}
        self._record_path = self._folder / f"{stem}.json"
        name.refuse_input([*self._paths.values(), self._record_path], source)
        self._source = None if source is None else os.path.realpath(source)
        self._key = _key(info, self._legend, options, fingerprint)
        self._partial: partial.PartialRows | None = None
        self._open(self._folder / PARTIAL / stem)

    def _open(self, rest: pathlib.Path) -> None:
        with failure.explained(self._folder, then="then run the same command again"):
            self._folder.mkdir(parents=True, exist_ok=True)
            self.record = partial.read_json(self._record_path)
            if not rest.exists():
                self._refuse_strangers()
            self.is_complete = self._is_recorded()
            if self.is_complete:
                partial.discard(rest)  # stopped just before that
            else:
                state = {**self._key, "source": self._source}
                self._partial = partial.PartialRows(rest, state, self._row_shapes())

    @property
    def rows_done(self) -> int:
        return self._partial.rows if self._partial else self._scene.height

    def write_rows(
        self, top: int, labels: np.ndarray, probabilities: np.ndarray | None = None
    ) -> None:
        """Adds rows; they come from the top down, without gaps.

        Args:
            top: scene row of the first one; equal to `rows_done`.
            labels: [h, W] uint8.
            probabilities: [h, W, K] float32, if the options need them.
        """
        height, width = labels.shape
        if top != self.rows_done or top + height > self._scene.height:
            raise ValueError(
                f"rows {top} to {top + height} do not follow the {self.rows_done} of "
                f"{self._scene.height} rows that are there"
            )
        shape = (height, width, len(self._legend.classes))
        if width != self._scene.width or (
            self._options.needs_probabilities
            and (probabilities is None or probabilities.shape != shape)
        ):
            raise ValueError(
                f"rows of {width} px with probabilities "
                f"{None if probabilities is None else probabilities.shape}; the scene "
                f"is {self._scene.width} px wide and has {shape[2]} classes"
            )
        rows = {"labels": labels}
        missing = labels == self._legend.nodata
        if self._options.probabilities:
            rows["probabilities"] = certainty.store_probabilities(
                probabilities, missing, self._options.probabilities
            )
        if self._options.uncertainty:
            rows["uncertainty"] = certainty.store_uncertainty(
                probabilities, missing, self._options.uncertainty
            )
        with failure.explained(self._folder, then=self._then()):
            self._partial.append(rows)

    def set_overview(self, picture: np.ndarray) -> None:
        """Takes the small picture of the input that the overlay is drawn on.

        It is kept with the partial rows.

        Args:
            picture: [h, w, 3] uint8 RGB, the whole scene.
        """
        if self._options.overlay and self._partial:
            small = overlay.reduce_picture(picture, side=self._options.overlay_side)
            with failure.explained(self._folder, then=self._then()):
                self._partial.keep_overview(small)

    def finish(self) -> dict[str, pathlib.Path]:
        """Makes the files; returns them by kind: "labels", "overlay", ..., "record"."""
        if not self.is_complete:
            if self.rows_done < self._scene.height:
                raise ValueError(
                    f"{self.rows_done} of {self._scene.height} rows are there; write "
                    "the others first"
                )
            with failure.explained(self._folder, then=self._then()):
                self._make_files()
            self.is_complete, self._partial = True, None
        return {**self._paths, "record": self._record_path}

    def class_pixels(self) -> dict[str, int]:
        """Returns the pixels of every class of a complete scene."""
        return {entry["name"]: entry["pixels"] for entry in self.record["classes"]}

    def close(self) -> None:
        """Ends the work; rows of an unfinished scene stay for the next run."""
        if self._partial:
            self._partial.close()

    def __enter__(self) -> SceneWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _then(self) -> str:
        return (
            f"then run the same command again: it goes on from the {self.rows_done} "
            f"of {self._scene.height} rows kept in {self._partial.folder}"
        )

    def _row_shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        width, count = self._scene.width, len(self._legend.classes)
        shapes = {"labels": ((width,), np.dtype("u1"))}
        if self._options.probabilities:
            dtype = np.dtype(self._options.probabilities)
            shapes["probabilities"] = ((width, count), dtype)
        if self._options.uncertainty:
            shapes["uncertainty"] = ((width,), np.dtype("u1"))
        return shapes

    def _refuse_strangers(self) -> None:
        """Raises if a file that is not of this scene would be overwritten."""
        record = self.record if _is_record(self.record) else None
        if record:
            other = record["source"]
            if record["key"]["id"] != self._scene.id or (
                other and self._source not in (None, other) and os.path.exists(other)
            ):
                raise errors.InputError(
                    f"{self._record_path} is of another scene ({other or record['key']}"
                    f"), not of {self._source or self._scene.id}; rename one of the "
                    "two inputs or choose another output folder"
                )
        known = {file["name"] for file in record["files"].values()} if record else set()
        wanted = [*self._paths.values(), *([] if record else [self._record_path])]
        for path in wanted:
            if path.exists() and path.name not in known:
                raise errors.InputError(
                    f"{path} exists and no record beside it says that it may be "
                    "overwritten; move it away or choose another output folder"
                )

    def _is_recorded(self) -> bool:
        if not _is_record(self.record) or self.record["key"] != self._key:
            return False
        sizes = {kind: file["bytes"] for kind, file in self.record["files"].items()}
        return sizes == {
            kind: path.stat().st_size if path.exists() else None
            for kind, path in self._paths.items()
        }

    def _make_files(self) -> None:
        fresh = self._partial.folder / "new"
        fresh.mkdir(exist_ok=True)
        parts = {kind: fresh / path.name for kind, path in self._paths.items()}
        try:
            counts, small = self._survey()
            self._encode(parts, counts, small)
            record = self._describe(parts, counts)
            self._publish(parts, record)
        finally:
            for part in fresh.iterdir():  # all that is left of a failure
                part.unlink()
            fresh.rmdir()
        self._partial.remove()
        self.record = record

    def _publish(self, parts: dict[str, pathlib.Path], record: dict[str, Any]) -> None:
        if _is_record(self.record):  # of older files, which stop being true now
            self._record_path.unlink(missing_ok=True)
            old = {file["name"] for file in self.record["files"].values()}
            for stale in old - {part.name for part in parts.values()}:
                (self._folder / stale).unlink(missing_ok=True)
        for kind, part in parts.items():
            partial.publish(part, self._paths[kind])
        partial.write_json(self._record_path, record)

    def _survey(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns pixels by label, [256] int64, and the reduced map for the overlay."""
        height, width = self._scene.height, self._scene.width
        picture = self._partial.overview()
        shape = overlay.reduced_shape(height, width, side=self._options.overlay_side)
        shape = shape if picture is None else picture.shape[:2]
        wanted = overlay.nearest(height, reduced=shape[0])
        columns = overlay.nearest(width, reduced=shape[1])
        counts, small = np.zeros(256, np.int64), np.zeros(shape, np.uint8)
        step = max(1, SURVEY_PIXELS // width)
        for top in range(0, height, step):
            rows = self._partial.read("labels", top, min(top + step, height))
            counts += (
                cv2.calcHist([rows], [0], None, [256], [0, 256]).ravel().astype(int)
            )
            first, last = np.searchsorted(wanted, [top, top + len(rows)])
            small[first:last] = rows[wanted[first:last] - top][:, columns]
        return counts, small

    def _encode(
        self, parts: dict[str, pathlib.Path], counts: np.ndarray, small: np.ndarray
    ) -> None:
        scene, legend, options = self._scene, self._legend, self._options
        mask.encode_labels(
            parts["labels"], self._reader("labels"), scene, legend, options
        )
        is_byte = options.probabilities == "uint8"
        if options.probabilities:
            layout = geotiff.Layout(
                scene, legend.classes, certainty.MISSING if is_byte else float("nan"),
                dtype=options.probabilities, tags=legend.tags(),
                scale=1 / certainty.STEPS if is_byte else 1.0,
            )  # fmt: skip
            read_rows = self._reader("probabilities")
            geotiff.write(parts["probabilities"], read_rows, layout)
        if options.uncertainty:
            layout = geotiff.Layout(
                scene, (options.uncertainty,), certainty.MISSING,
                scale=1 / certainty.STEPS,
                tags={"meaning": MEANINGS[options.uncertainty]},
            )  # fmt: skip
            geotiff.write(parts["uncertainty"], self._reader("uncertainty"), layout)
        if options.overlay:
            shares = _shares(counts, legend)
            drawn = overlay.draw(small, self._partial.overview(), legend, shares)
            _, coded = cv2.imencode(".png", drawn[..., ::-1])
            parts["overlay"].write_bytes(coded.tobytes())
        if options.polygons:
            polygon_lib.write(
                parts["polygons"], parts["labels"], scene, legend,
                min_px=options.polygon_min_px,
            )  # fmt: skip

    def _reader(self, kind: str) -> geotiff.ReadRows:
        return lambda top, bottom: self._partial.read(kind, top, bottom)

    def _describe(
        self, parts: dict[str, pathlib.Path], counts: np.ndarray
    ) -> dict[str, Any]:
        """Returns the record of a complete scene."""
        legend, shares = self._legend, _shares(counts, self._legend)
        return {
            "key": self._key,
            "source": self._source,
            "classes": [
                {"id": i, "name": text, "pixels": int(counts[i]), "share": shares[i]}
                for i, text in enumerate(legend.classes)
            ],
            "nodata": {"id": legend.nodata, "pixels": int(counts[legend.nodata])},
            "files": {
                kind: {"name": part.name, "bytes": part.stat().st_size}
                for kind, part in parts.items()
            },
        }


def _shares(counts: np.ndarray, legend: legend_lib.Legend) -> list[float]:
    """Returns the part of every class in the pixels that have one."""
    pixels = counts[: len(legend.classes)]
    return (pixels / max(pixels.sum(), 1)).tolist()


def _key(
    scene: prepared.SceneInfo,
    legend: legend_lib.Legend,
    options: options_lib.OutputOptions,
    fingerprint: str,
) -> dict[str, Any]:
    """Returns what must be equal for rows and files to be used again, as JSON reads."""
    place = {"crs": scene.crs, "transform": scene.transform}
    size = {"id": scene.id, "height": scene.height, "width": scene.width}
    key = {
        "fingerprint": fingerprint, **size, **place, "legend": legend._asdict(),
        "options": dataclasses.asdict(options),
    }  # fmt: skip
    return json.loads(json.dumps(key))


def _is_record(tree: Any) -> bool:
    return isinstance(tree, dict) and {"key", "source", "classes", "files"} <= set(tree)
