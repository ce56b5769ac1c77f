"""Every command as a newcomer meets it: help, preview, explain, doctor, ops, the recipes of the repository."""
import json
import re
import subprocess

import pytest
from conftest import ROOT, SANITIZED, SHARDMILL, decode, good, run

COMMANDS = ["check", "explain", "ops", "expand", "merge", "preview", "broker", "worker", "status", "doctor"]


def test_every_command_has_help_that_names_its_options():
    overview = good("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\b", overview, re.M), command
        text = good(command, "--help").stdout
        assert text.startswith(("usage:", "Usage:", f"shardmill {command}")) and "--help" in text
        assert all(len(line) <= 120 for line in text.splitlines())


def test_man_page_and_completion_come_from_the_same_tables(tmp_path):
    man, completion = good("docs", "man").stdout, good("docs", "bash").stdout
    for command in COMMANDS:
        for option in re.findall(r"--[a-z-]+", good(command, "--help").stdout):
            assert option.replace("-", "\\-") in man or option in man, (command, option)
        assert command in completion
    assert subprocess.run(["bash", "-n"], input=completion, text=True).returncode == 0


@pytest.mark.parametrize("recipe", sorted(p.name for p in (ROOT / "pipelines").glob("*.yaml")))
def test_every_recipe_checks_and_explains(recipe, photos):
    path = ROOT / "pipelines" / recipe
    good("check", path)
    of_other_data = recipe in ("table.yaml", "pca.yaml")  # a table, and more pictures than these
    assert good("explain", path, *([] if of_other_data else ["--source", photos])).stdout


@pytest.mark.parametrize("recipe", ["photos.yaml", "simclr.yaml", "eval.yaml", "rotate.yaml", "demo.yaml"])
def test_every_recipe_runs(recipe, photos, tmp_path):
    good("expand", ROOT / "pipelines" / recipe, "--source", photos, "-o", tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_preview_is_a_picture_and_the_same_each_time(photos, pipeline, tmp_path):
    file = pipeline(photos)
    (photos / "oak" / "zz-broken.jpg").write_text("no picture")
    try:
        good("preview", file, "-o", tmp_path / "a.png", "--samples", 6, "--copies", 2)
        good("preview", file, "-o", tmp_path / "b.png", "--samples", 6, "--copies", 2)
    finally:
        (photos / "oak" / "zz-broken.jpg").unlink()
    sheet = decode((tmp_path / "a.png").read_bytes())
    assert sheet.size[0] > 3 * 128 and sheet.size[1] > 6 * 128 and len(sheet.convert("L").getcolors()) > 50
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert run("preview", file, "-o", tmp_path / "c.png", "--class", "oka").stderr.find("oak") > 0


@pytest.mark.skipif(SANITIZED, reason="a sanitizer cannot be caged")
def test_doctor_proves_the_cage_on_this_machine():
    done = good("doctor")
    for probe in ("open", "socket", "program", "trace", "fork"):
        assert re.search(rf"{probe}.*refused", done.stdout), done.stdout
    report = json.loads(good("doctor", "--json").stdout)
    assert report["healthy"] is True


def test_explain_says_why_there_is_no_index_and_uses_one_that_serve_keeps(photos, pipeline, tmp_path, start):
    file = pipeline(photos)
    file.write_text(file.read_text() + "output: {batch_size: 4}\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "tmp").mkdir()
    own = {"env": {"TMPDIR": str(tmp_path / "tmp")}, "cwd": tmp_path}
    wrong = run("explain", file, "--source", tmp_path / "empty", **own)
    assert wrong.returncode == 1 and "no sub-folders" in wrong.stderr
    assert "nothing at" not in wrong.stdout and "cannot be indexed" in wrong.stdout
    assert "24 samples" in good("explain", file, **own).stdout
    served = start("serve", file, "--bind", f"ipc://{tmp_path}/b", "--workers", 1, cwd=tmp_path)
    assert served.process.stdout.readline().startswith("serving ")
    kept = good("explain", file, **own).stdout
    assert "24 samples" in kept and "--reindex" in kept
    assert "--reindex" not in good("explain", file, "--reindex", **own).stdout
    good("preview", file, "-o", tmp_path / "a.png", **own)
    assert not list((tmp_path / "tmp").iterdir())


def test_installed_files_are_where_packages_expect_them(tmp_path):
    build = SHARDMILL.rsplit("/", 1)[0]
    subprocess.run(["make", "-s", "install", f"DESTDIR={tmp_path}", "PREFIX=/usr", f"BUILD={build}"], cwd=ROOT, check=True,
                   capture_output=True)
    for path in ("usr/bin/shardmill", "usr/share/man/man1/shardmill.1", "usr/share/bash-completion/completions/shardmill",
                 "usr/share/shardmill/schema.json", "usr/share/shardmill/pipelines/photos.yaml"):
        assert (tmp_path / path).exists(), path


def test_ops_tells_of_ops_of_methods_of_rebalance_and_of_sections():
    listed = good("ops").stdout
    for name, says in [("RandomCrop", "padding"), ("SMOTE", "k_neighbors"), ("WeightedSampler", "weights"), ("source", "delimiter"), ("split", "stratify")]:
        assert re.search(rf"^{name}\b", listed, re.M)
        text, table = good("ops", name).stdout, json.loads(good("ops", name, "--json").stdout)
        assert text.startswith(name + "\n") and says in text
        assert table["name"] == name and says in [p["name"] for p in table["parameters"]]
    wrong = run("ops", "Smot")
    assert wrong.returncode == 2 and "did you mean 'SMOTE'?" in wrong.stderr


@pytest.mark.parametrize("key", ["part: val", "artifacts: [x]", "rebalance_artifact: x"])
def test_what_only_programs_set_is_no_key_of_a_file(tmp_path, key):
    (tmp_path / "p.yaml").write_text(f"version: 1\n{key}\nsource: {{path: x}}\nops: []\n")
    done = run("check", tmp_path / "p.yaml")
    name = key.partition(":")[0]
    assert done.returncode == 2 and f"unknown key '{name}'" in done.stderr and done.stderr.count(name) < 4
