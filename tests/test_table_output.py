"""What a user sees: text, Markdown, LaTeX, CSV, the page, EXPERIMENTS.md, commands."""

import csv
import html.parser
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
from table_runs import recipe_of, write_panel, write_run

from uhrjax.tables import __main__ as tables
from uhrjax.tables import command, result, text
from uhrjax.tables import table as table_lib


@pytest.fixture
def runs(tmp_path) -> pathlib.Path:
    """Two rows of PFNet's Table 2a on synthetic data, one of them under conditions."""
    folder = tmp_path / "runs"
    for seed, miou in ((0, 0.40), (1, 0.42)):
        training = recipe_of("pfnet", "2a", "+PPM").training
        place = folder / f"upernet-{seed}"
        write_run(place, training, seed=seed, scores={"miou": miou})
        write_panel(place)
    write_run(
        folder / "pfnet-0", recipe_of("pfnet", "2a", "+PPM+salient+boundary").training,
        scores={"miou": 0.45, "foreground_point_ratio_all": 0.1},
        changes={"epochs": 3},
    )  # fmt: skip
    write_panel(folder / "pfnet-0", parts=4)
    (folder / "pfnet-0/pictures").mkdir()
    cv2.imwrite(str(folder / "pfnet-0/pictures/points.png"), np.zeros((9, 9, 3)))
    return folder


def said(capsys, *argv):
    assert tables.main([str(word) for word in argv]) == 0
    return capsys.readouterr().out


def test_the_list_counts_rows_by_state(capsys, runs):
    found = said(capsys, f"--runs={runs}")
    (line,) = re.findall(r"^2a +synthetic .*$", found, re.MULTILINE)
    assert line.split()[2:7] == ["6", "1", "1", "4", "0"]  # rows, run, differ, not, gap
    (line,) = re.findall(r"^6 +ade20k .*$", found, re.MULTILINE)
    assert line.split()[2:7] == ["5", "0", "0", "5", "0"]
    for name in ("pfnet:", "fctl:", "foveation:", "magnet:"):
        assert name in found


def test_one_table_stands_beside_the_paper(capsys, runs):
    found = said(capsys, "pfnet", "2a", f"--runs={runs}")
    assert re.search(r"\+PPM +63\.8 \| - +not run", found)
    assert re.search(r"\+PPM +41\.0 ± 1\.4 \(2\) +2 seeds", found)
    assert re.search(
        r"\+PPM\+salient\+boundary +\[45\.0 \(1\)\] +differs, 1 seed", found
    )
    assert "epochs: 8 -> 3" in found and str(runs / "upernet-1") in found
    assert "62.1 in table 4" in found  # a known trouble of the paper


def test_wide_tables_are_shown_in_parts():
    (block,) = table_lib.blocks(
        tables.paper_lib.load("magnet"), "S2", [], ("cityscapes",)
    )
    lines = text.plain(block).splitlines()
    assert len(block.metrics) == 20
    assert sum("iou/bicycle" in line for line in lines) == 1
    assert sum(line.startswith("Downsample ") for line in lines) == 3


def test_markdown_figures_link_to_their_runs(capsys, runs):
    found = said(
        capsys, "pfnet", "2a", "--data=synthetic", "--markdown", f"--runs={runs}"
    )
    assert f"| +PPM | [41.0 ± 1.4 (2)]({runs}/upernet-0) | 2 seeds |" in found
    assert rf"[\[45.0 (1)\]]({runs}/pfnet-0)" in found
    rows = [line for line in found.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_latex_has_a_row_per_row_and_escapes(capsys, runs):
    found = said(capsys, "pfnet", "2f", "--data=isaid", "--latex", f"--runs={runs}")
    body = found[found.index(r"\midrule") : found.index(r"\bottomrule")]
    assert body.count(r"\\") == 4
    assert r"63.8 $\mid$ -" in body
    found = said(capsys, "fctl", "2", "--data=synthetic", "--latex", f"--runs={runs}")
    assert r"mean\_f1" not in found and "f1" in found
    assert text._escape(r"a_b & 5% ± \x") == r"a\_b \& 5\% $\pm$ \textbackslash{}x"


def test_csv_has_every_figure_of_all_tables(capsys, runs):
    lines = list(csv.DictReader(io.StringIO(said(capsys, "--csv", f"--runs={runs}"))))
    assert sum(bool(line["paper_value"]) for line in lines) == 906
    (own,) = (
        line for line in lines
        if (line["table"], line["row"], line["dataset"]) == ("2a", "+PPM", "synthetic")
    )  # fmt: skip
    assert float(own["mean"]) == pytest.approx(41.0) and own["is_match"] == "1"
    assert own["seeds"] == "2" and str(runs / "upernet-1") in own["runs"]


class Page(html.parser.HTMLParser):
    """Checks that tags close in order, and keeps them."""

    VOID = ("meta", "img", "input", "br")

    def __init__(self, content):
        super().__init__()
        self.open, self.tags, self.text = [], [], []
        self.feed(content)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag, **attrs):
        return [
            own for name, own in self.tags
            if name == tag and all(own.get(k) == v for k, v in attrs.items())
        ]  # fmt: skip


def test_the_page_is_one_file_with_bars_links_and_pictures(capsys, runs, tmp_path):
    target = tmp_path / "page.html"
    said(
        capsys, "pfnet", "2a", "--data=isaid,synthetic", f"--runs={runs}",
        f"--html={target}",
    )  # fmt: skip
    content = target.read_text()
    page = Page(content)
    assert len(page.all("table")) == 2
    assert len(page.all("div", **{"class": "bar paper"})) == 6
    assert len(page.all("div", **{"class": "bar ours"})) == 1
    assert len(page.all("div", **{"class": "bar apart"})) == 1
    links = [own["href"] for own in page.all("a")]
    assert links == ["runs/upernet-0/", "runs/pfnet-0/"]  # relative to the page
    assert all((tmp_path / link).is_dir() for link in links)
    assert not re.search(r"(src|href)=\"?https?:", content)  # nothing is loaded


def test_the_page_lets_the_rows_of_a_scene_be_compared(capsys, runs, tmp_path):
    target = tmp_path / "page.html"
    said(
        capsys, "pfnet", "2a", "--data=synthetic", f"--runs={runs}", f"--html={target}"
    )
    content = target.read_text()
    kept = json.loads(re.search(r"const pictures = (\{.*\});", content)[1])
    assert all(data.startswith("data:image/png;base64,") for data in kept.values())
    page = Page(content)
    assert len(page.all("figure", **{"class": "scene"})) == 1
    assert len(page.all("input", type="range")) == 1
    shown = page.all("option")
    assert {own["value"] for own in shown} <= set(kept)
    chosen = [k for k, own in enumerate(shown) if "selected" in own]
    assert len(shown) == 2 * 5 and len(chosen) == 2
    joined = "".join(page.text)
    for name in ("image", "label", "+PPM: prediction"):
        assert name in joined
    assert "+PPM+salient+boundary: points" in joined
    (more,) = page.all("img", alt="+PPM+salient+boundary: points")
    assert more["data-key"] in kept
    assert len(kept) == 5  # image, label, prediction, points: the same bytes once


def test_experiments_tell_what_was_run_and_no_path_of_this_machine(
    capsys, runs, tmp_path
):
    target = tmp_path / "EXPERIMENTS.md"
    said(capsys, f"--experiments={target}", f"--runs={runs}")
    found = target.read_text()
    assert str(tmp_path) not in found
    assert "### pfnet 2a: Parts of the point flow module, synthetic" in found
    assert "+PPM | [41.0 ± 1.4 (2)](#upernet-0)" in found
    assert '<a id="upernet-0"></a>`upernet-0` | synthetic/objects_tiny, test' in found
    assert "| 1 x cpu (cpu) | 2026-01-01 | 0.1.0 |" in found
    assert "fctl" not in found.partition("## Runs")[0]  # of tables nobody ran: nothing
    assert "| miou | % | mean over classes of TP / (TP + FP + FN)" in found
    empty = tmp_path / "empty"
    said(capsys, f"--experiments={target}", f"--runs={empty}")
    assert target.read_text() == found  # of runs elsewhere nothing is lost
    target.unlink()
    said(capsys, f"--experiments={target}", f"--runs={empty}")
    assert "Nothing has been run yet." in target.read_text()


def test_experiments_show_a_scene_as_the_rows_label_it(capsys, runs, tmp_path):
    target = tmp_path / "EXPERIMENTS.md"
    said(capsys, "pfnet", "2a", f"--experiments={target}", f"--runs={runs}")
    file = "EXPERIMENTS-pictures/pfnet-2a-synthetic.jpg"
    title = "pfnet 2a: Parts of the point flow module, synthetic"
    assert f"\n\n![{title}]({file})\n" in target.read_text()
    sheet = cv2.imread(str(tmp_path / file))
    one = cv2.imread(str(next((runs / "upernet-0/panels").iterdir())))
    assert sheet.shape == (len(one), one.shape[1] // 3 * 4, 3)  # two rows
    here = tmp_path / "here"
    write_run(here / "upernet-0", recipe_of("pfnet", "2a", "+PPM").training)
    said(capsys, "pfnet", "2a", f"--experiments={target}", f"--runs={here}")
    assert f"![{title}]({file})\n" in target.read_text()  # drawn elsewhere, it stays


def test_experiments_keep_rows_whose_runs_are_elsewhere(capsys, runs, tmp_path):
    target = tmp_path / "EXPERIMENTS.md"
    said(capsys, f"--experiments={target}", f"--runs={runs}")
    here = tmp_path / "here"
    training = recipe_of("pfnet", "2a", "SemanticFPN").training
    write_run(here / "fpn-0", training, scores={"miou": 0.5}, changes={"epochs": 4})
    write_run(here / "upernet-5", recipe_of("pfnet", "2a", "+PPM").training, seed=5)
    said(capsys, "pfnet", f"--experiments={target}", f"--runs={here}")
    found = target.read_text()
    table = found.partition("### pfnet 2a")[2].partition("###")[0]
    state = re.search(r"^\| SemanticFPN .* (\[\d\]) \|$", table, re.MULTILINE)[1]
    assert f"{state} epochs: 8 -> 4" in table
    state = re.search(r"^\| \+PPM\+sal.*bound.* (\[\d\]) \|$", table, re.MULTILINE)[1]
    assert f"{state} epochs: 8 -> 3" in table  # another number than it had
    assert "+PPM | [41.0 ± 1.4 (2)](#upernet-0)" in table  # two seeds there, one here
    for name in ("upernet-0", "upernet-1", "pfnet-0", "fpn-0", "upernet-5"):
        assert found.count(f'<a id="{name}"></a>') == 1
    again = tmp_path / "again"
    said(capsys, f"--experiments={target}", f"--runs={again}")
    assert target.read_text() == found
    write_run(again / "fpn-1", training, scores={"miou": 0.6}, seed=1)
    said(capsys, "pfnet", "2a", f"--experiments={target}", f"--runs={again}")
    assert table in target.read_text()  # one row of three: they compare as they were
    assert '<a id="fpn-1"></a>' in target.read_text()


def test_experiments_keep_a_table_that_was_run_again_with_fewer_seeds(
    capsys, runs, tmp_path
):
    target, again = tmp_path / "EXPERIMENTS.md", tmp_path / "again"
    said(capsys, "pfnet", "2a", f"--experiments={target}", f"--runs={runs}")
    table = target.read_text().partition("## Runs")[0]
    shutil.rmtree(tmp_path / "EXPERIMENTS-pictures")
    target.write_text(re.sub(r"\n!\[.*\n", "", target.read_text()))  # an older file
    shutil.copytree(runs, again)
    shutil.rmtree(again / "upernet-1")
    said(capsys, "pfnet", "2a", f"--experiments={target}", f"--runs={again}")
    assert target.read_text().partition("## Runs")[0] == table  # with the picture
    assert (tmp_path / "EXPERIMENTS-pictures/pfnet-2a-synthetic.jpg").is_file()


def commands_of(capsys, *argv):
    return said(capsys, *argv, "--commands").splitlines()


def test_commands_are_those_of_the_rows_that_are_not_done(capsys, runs):
    found = commands_of(
        capsys, "pfnet", "2a", "--data=synthetic", "--seeds=0,1", f"--runs={runs}"
    )
    assert len(found) == 5 * 2  # six rows; +PPM is done
    assert found[0] == (
        f"./launch.sh configs/semantic_fpn.py:synthetic "
        f"--workdir={runs}/semantic_fpn-synthetic-seed0 --config.seed=0"
    )
    assert any(line.endswith("--config.model.ppm=False") for line in found)
    assert not any("upernet" in line for line in found)


def test_commands_of_all_tables_name_every_training_once(capsys, tmp_path):
    found = commands_of(capsys, f"--runs={tmp_path}")
    assert len(set(found)) == len(found) > 100
    places = re.findall(r"--workdir=(\S+)", "\n".join(found))
    stages = re.findall(r"--config.stage=\S+", "\n".join(found))
    assert len(places) - len(set(places)) <= len(stages)


def test_what_a_row_builds_on_comes_first(capsys, tmp_path):
    found = commands_of(
        capsys, "fctl", "1", "--row=CascadePSP", f"--runs={tmp_path}", "--seeds=3"
    )
    run = f"{tmp_path}/fctl-deepglobe-crude-contexts=none-seed3"
    psp = f"{tmp_path}/cascadepsp-deepglobe-seed3"
    assert [line.split()[1] for line in found[:2]] == [
        "configs/fctl.py:deepglobe,crude", "configs/cascadepsp.py:deepglobe",
    ]  # fmt: skip
    assert found[2] == (
        f"python -m uhrjax.main --mode=evaluate --checkpoint={run} "
        f"--output={run}/scored/refine=cascadepsp-deepglobe --config.refine={psp}"
    )
    found = commands_of(
        capsys, "foveation", "2", "--row=Ensemble", "--data=synthetic",
        f"--runs={tmp_path}",
    )  # fmt: skip
    assert len(found) == 6
    assert found[-1].startswith("python -m uhrjax.foveate ensemble --runs=")


def test_runs_elsewhere_are_built_upon(capsys, tmp_path):
    recipe = recipe_of("fctl", "6", "merge: montaging")
    write_run(tmp_path / "mine", recipe.training)
    (found,) = commands_of(
        capsys, "fctl", "6", "--row=merge: montaging", "--data=synthetic",
        f"--runs={tmp_path}",
    )  # fmt: skip
    assert found == (
        f"python -m uhrjax.main --mode=evaluate --checkpoint={tmp_path}/mine/all "
        f"--output={tmp_path}/mine/all/scored/blend=montage --config.eval.blend=montage"
    )


def test_published_weights_go_into_the_runs_that_need_them(capsys, tmp_path):
    (tmp_path / "vgg16.npz").touch()
    given = f"--runs={tmp_path}", f"--weights={tmp_path}"
    row = "fctl", "5", "--row=fusion: adaptive"
    (found,) = commands_of(capsys, *row, "--data=inria", *given)
    assert f"--config.init_from={tmp_path}/vgg16.npz" in found
    (found,) = commands_of(capsys, *row, "--data=synthetic", *given)
    assert "init_from" not in found
    tables.main([*row, "--data=inria", "--commands", given[0]])
    assert "random weights, the paper's rows from vgg16" in capsys.readouterr().err
    with pytest.raises(tables.errors.InputError, match="has no resnet50_deep with one"):
        tables.main(["pfnet", "2a", "--commands", *given])


@pytest.mark.parametrize(
    "argv, match",
    [
        (["unet"], "no paper 'unet'"),
        (["pfnet", "9"], "no table '9'.*2a"),
        (["pfnet", "2a", "--row=nope"], "--row=nope: use one of 'SemanticFPN'"),
        (["pfnet", "--data=moon"], "--data=moon: use some of .*synthetic"),
        (["pfnet", "--commands", "--seeds=a"], "--seeds=a: give whole numbers"),
        (["pfnet", "--nope"], "unknown argument '--nope'"),
    ],
)
def test_mistakes_are_one_sentence(argv, match):
    with pytest.raises(tables.errors.InputError, match=match) as caught:
        tables.main(argv)
    assert "\n" not in str(caught.value)


def job(tmp_path, name, code):
    """A command that writes its report, or fails."""
    (tmp_path / f"{name}.py").write_text(code.format(target=tmp_path / name))
    return command.Job(name, (), tmp_path / name)


def test_running_skips_what_is_done_and_goes_on_after_a_failure(
    capfd, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    makes = "open({target!r}, 'a').write('x')".replace("{target!r}", "'{target}'")
    jobs = [job(tmp_path, "done", makes), job(tmp_path, "bad", "raise SystemExit(2)")]
    jobs.append(job(tmp_path, "last", makes))
    (tmp_path / "done").touch()
    assert command.run(jobs, tmp_path) == 1
    assert (tmp_path / "done").read_text() == ""
    assert (tmp_path / "last").read_text() == "x"
    assert "failed: python -m bad" in capfd.readouterr().out
    stopped = job(tmp_path, "stopped", "pass")  # asked to stop: no report, no failure
    never = job(tmp_path, "never", makes)
    assert command.run([stopped, never], tmp_path) == 1
    assert not (tmp_path / "never").exists()


def test_a_row_runs_and_then_stands_in_the_table(capsys, tmp_path, data_root):
    """One row as `./launch.sh table` runs it, at the size of seconds."""
    row = ["pfnet", "2a", "--row=SemanticFPN", "--data=smoke", f"--runs={tmp_path}"]
    small = ["--config.max_steps=1", "--config.eval.panels=1"]
    small += ["--config.model.width=4", "--config.model.fpn_dim=8"]
    environment = {**os.environ, "TFDS_DATA_DIR": str(data_root)}
    argv = [sys.executable, "-m", "uhrjax.tables", *row, "--run", *small]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = result.scan(tmp_path)
    report = found.reports[""]
    assert report["trained_steps"] == [1, 1]
    again = subprocess.run(argv, env=environment, capture_output=True, text=True)
    assert again.stdout == "nothing to run: every row that can be run is finished\n"
    # Another length than the row's, another network: it is no match, nor shown as one.
    assert "not run" in said(capsys, *row)


def test_the_launcher_installs_and_runs_a_table(tmp_path):
    for name in ("launch.sh", "pyproject.toml"):
        shutil.copy(name, tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@"\n')
    python.chmod(0o755)
    argv = [tmp_path / "launch.sh", "table", "pfnet", "2a", "--data=synthetic"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "-m pip install" in lines[-2]
    assert lines[-1] == "-m uhrjax.tables pfnet 2a --data=synthetic --run"
