"""The main job from outside: a folder of real pictures in, verified shards out."""
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import urllib.parse

import numpy
import pytest
from conftest import OPS, SANITIZED, SHARDMILL, decode, digests, good, leftovers, manifest, pictures, run, samples, wait_until


def test_shards_open_with_standard_tools_and_hold_what_the_manifest_says(photos, pipeline, tmp_path):
    out = tmp_path / "out"
    good("expand", pipeline(photos, copies=3), "-o", out, "--workers", 2)
    m = manifest(out)
    found = samples(out)
    assert m["planned"] == m["written"] == len(found) == 72 and m["quarantined"] == 0
    assert m["classes"] == ["birch", "cedar", "oak"]
    assert {name: c["in_shards"] for name, c in m["per_class"].items()} == {"birch": 48, "cedar": 18, "oak": 6}
    assert [s["samples"] for s in m["shards"]] == [10] * 7 + [2]
    assert m["seed"] == 7 and m["fingerprint"]
    for shard in m["shards"]:
        path = out / shard["name"]
        assert path.stat().st_size == shard["bytes"]
        sha = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
        assert sha == shard["sha256"]
    pairs = set()
    for position, sample in enumerate(found):
        info = sample["json"]
        assert sample["key"] == f"{position:010d}" and info["position"] == position
        assert sample["extension"] == "jpg" and decode(sample["bytes"]).size == (64, 64)
        assert m["classes"][sample["cls"]] == info["class"] == info["source"].split("/")[0]
        assert [d["op"] for d in info["draws"]] == ["RandomResizedCrop", "RandomHorizontalFlip"]
        pairs.add((info["source"], info["copy"]))
    assert len(pairs) == 72
    assert not leftovers(out)
    assert (out / "quarantine.jsonl").read_text() == ""


@pytest.mark.parametrize("options", [["--workers", 2], ["--workers", 4], ["--workers", 1, "--lease", 3],
                                     ["--workers", 2, "--lease", 1]])
def test_the_bytes_do_not_depend_on_workers_or_leases(photos, pipeline, tmp_path, options):
    file = pipeline(photos)
    good("expand", file, "-o", tmp_path / "one", "--workers", 1)
    good("expand", file, "-o", tmp_path / "other", *options)
    assert digests(tmp_path / "one") == digests(tmp_path / "other")


@pytest.mark.parametrize("encode", ["jpeg", "tensor"])
def test_short_cuts_of_the_engine_change_no_byte(photos, pipeline, tmp_path, encode):
    file = pipeline(photos, ops=OPS + "  - Pad: {padding: 2}\n  - RandomAffine: {degrees: 9}\n", expand=f"encode: {encode}")
    good("expand", file, "-o", tmp_path / "fused")
    good("expand", file, "-o", tmp_path / "plain", "--no-fuse")
    assert digests(tmp_path / "fused") == digests(tmp_path / "plain")
    others = run("expand", file, "-o", tmp_path / "o", "--no-fuse", "--broker", f"ipc://{tmp_path}/b")
    assert others.returncode == 2 and "worker --no-fuse" in others.stderr
    good("preview", file, "-o", tmp_path / "a.png")
    good("preview", file, "-o", tmp_path / "b.png", "--no-fuse")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_seed_that_is_too_large_is_refused_by_its_maximum(photos, pipeline, tmp_path):
    file = pipeline(photos)
    good("expand", file, "-o", tmp_path / "out", "--seed", 2**63 - 1)
    assert manifest(tmp_path / "out")["seed"] == 2**63 - 1
    for seed in (2**63, 2**64):
        refused = run("expand", file, "-o", tmp_path / "o", "--seed", seed)
        assert refused.returncode == 2 and "largest is 9223372036854775807" in refused.stderr, refused.stderr


def test_a_name_that_is_not_utf_8_can_be_had_back(photos, pipeline, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(photos, folder)
    name = os.fsencode(next((folder / "oak").iterdir()))
    os.rename(name, os.path.dirname(name) + b"/a\xff% b.jpg")
    good("expand", pipeline(folder, copies=1), "-o", tmp_path / "out")
    quoted = [s["json"]["source_quoted"] for s in samples(tmp_path / "out") if "source_quoted" in s["json"]]
    assert [urllib.parse.unquote_to_bytes(q) for q in quoted] == [b"oak/a\xff% b.jpg"]


def test_images_in_a_webdataset_are_found_by_their_last_extension(photos, pipeline, tmp_path):
    data = tmp_path / "data.tar"
    paths = sorted(photos.glob("*/*"))[:3]
    with tarfile.open(data, "w") as tar:
        for i, path in enumerate(paths):
            suffix = path.suffix
            # key 0: one image under a compound extension; key 1: the plain one counts although it comes second
            members = {f"{i}.left{suffix}": path} if i == 0 else {f"{i}.depth{suffix}": paths[0], f"{i}{suffix}": path}
            for member, content in members.items():
                tar.add(content, member)
            label = tarfile.TarInfo(f"{i}.cls")
            label.size = 1
            tar.addfile(label, io.BytesIO(b"7"))
    file = pipeline(data, copies=1, expand="originals: true")
    file.write_text(file.read_text().replace("format: folder", "format: webdataset"))
    good("expand", file, "-o", tmp_path / "out")
    found = {s["json"]["sample"]: s["bytes"] for s in samples(tmp_path / "out")}
    assert [found[i] for i in range(3)] == [p.read_bytes() for p in paths]


def test_seed_and_epoch_change_the_bytes(photos, pipeline, tmp_path):
    file = pipeline(photos)
    good("expand", file, "-o", tmp_path / "a")
    good("expand", file, "-o", tmp_path / "b", "--seed", 8)
    good("expand", file, "-o", tmp_path / "c", "--epoch", 1)
    first = [s["sha256"] for s in manifest(tmp_path / "a")["shards"]]
    assert not set(first) & {s["sha256"] for s in manifest(tmp_path / "b")["shards"]}
    assert not set(first) & {s["sha256"] for s in manifest(tmp_path / "c")["shards"]}


def test_without_shuffle_the_samples_come_in_order(photos, pipeline, tmp_path):
    file = pipeline(photos)
    file.write_text(file.read_text() + "output: {shuffle: false}\n")
    good("expand", file, "-o", tmp_path / "out")
    order = [(s["json"]["source"], s["json"]["copy"]) for s in samples(tmp_path / "out")]
    assert order == sorted(order) and len(set(order)) == 48


def test_a_finished_run_is_recognised_and_another_one_refused(photos, pipeline, tmp_path):
    file, out = pipeline(photos), tmp_path / "out"
    good("expand", file, "-o", out)
    before = digests(out)
    again = good("expand", file, "-o", out)
    assert "complete" in (again.stdout + again.stderr)
    assert digests(out) == before and not leftovers(out)
    seed = run("expand", file, "-o", out, "--seed", 9)
    assert seed.returncode == 1 and "the seed (9, was 7)" in seed.stderr
    other = run("expand", pipeline(photos, ops="  - Resize: {size: 32}\n", name="other.yaml"), "-o", out)
    assert other.returncode == 1 and "the pipeline" in other.stderr
    fewer = tmp_path / "fewer"
    shutil.copytree(photos, fewer)
    next((fewer / "birch").iterdir()).unlink()
    dataset = run("expand", file, "-o", out, "--source", fewer)
    assert dataset.returncode == 1 and "the dataset" in dataset.stderr
    assert digests(out) == before
    next(out.glob("shard-*.tar")).unlink()
    good("expand", file, "-o", out)
    assert digests(out) == before


def test_bad_samples_are_quarantined_with_reasons_and_their_places_filled(photos, pipeline, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(photos, folder)
    good_file = next((folder / "birch").iterdir())
    (folder / "birch" / "cut.jpg").write_bytes(good_file.read_bytes()[:good_file.stat().st_size // 2])
    (folder / "birch" / "empty.jpg").write_bytes(b"")
    (folder / "cedar" / "text.jpg").write_text("this is not a picture\n" * 9)
    (folder / "oak" / "svg.jpg").write_bytes(b"\x1f\x8b\x08\x00" + bytes(181))
    file, out = pipeline(folder), tmp_path / "out"
    done = run("expand", file, "-o", out)
    assert done.returncode == 3, done.stderr
    m = manifest(out)
    bad = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert {b["file"]: b["code"] for b in bad} == {"birch/cut.jpg": "truncated", "birch/empty.jpg": "empty",
                                                   "cedar/text.jpg": "format", "oak/svg.jpg": "format"}
    assert all(b["text"] and b["stage"] and len(b["positions"]) == 2 for b in bad)
    assert m["quarantined"] == 8 and m["planned"] == 56 and m["written"] == 48
    found = samples(out)
    assert len(found) == 56
    stand_ins = [s for s in found if "substitute_for" in s["json"]]
    assert sorted(s["json"]["position"] for s in stand_ins) == sorted(p for b in bad for p in b["positions"])
    for s in stand_ins:
        assert s["json"]["class"] == s["json"]["substitute_for"]["source"].split("/")[0]
        assert decode(s["bytes"]).size == (64, 64)
    bytes_of_others = {s["bytes"] for s in found if "substitute_for" not in s["json"]}
    assert not [s for s in stand_ins if s["bytes"] in bytes_of_others], "a substitute has draws of its own"
    good("expand", file, "-o", tmp_path / "again", "--max-quarantine", 0.2, "--workers", 1, "--lease", 2)
    assert digests(out) == digests(tmp_path / "again")
    strict = pipeline(folder, source="on_error: fail", name="strict.yaml")
    stopped = run("expand", strict, "-o", tmp_path / "strict")
    assert stopped.returncode == 1 and any(n in stopped.stderr for n in ("cut.jpg", "empty.jpg", "text.jpg", "svg.jpg"))


@pytest.mark.parametrize("drawn", [
    "split: {val: 0.4, stratify: true}", "rebalance: {RandomOverSampler: {}}", "rebalance: {RandomUnderSampler: {sampling_strategy: {birch: 9}}}",
    "rebalance: {WeightedSampler: {weights: {birch: 1, cedar: 2, oak: 5}}}", "rebalance: {RepeatFactor: {threshold: 0.5}}",
    "output: {batch_size: 6}\nrebalance: {ClassBalancedBatches: {n_classes: 3, n_samples: 2}}",
], ids=lambda drawn: re.search(r"\w+(?=: \{[^{]*\}+$)|split", drawn).group())
@pytest.mark.parametrize("rows", [False, True], ids=["pictures", "rows"])
def test_a_bad_sample_is_named_whatever_way_an_epoch_is_drawn(photos, pipeline, tmp_path, drawn, rows):
    """Its place in the plan is not its place in the dataset."""
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(photos, folder)
    for label in ("birch", "oak"):
        victim = sorted((folder / label).iterdir())[-1]
        (folder / label / "cut.jpg").write_bytes(victim.read_bytes()[:2000])
        for i in range(3):
            shutil.copyfile(victim, folder / label / f"more{i}{victim.suffix}")
    ops = "  - Resize: {size: [8, 8]}\n" + ("  - Flatten\n" if rows else "")
    file = pipeline(folder, ops=ops, copies=1, expand="encode: csv" if rows else "")
    file.write_text(file.read_text() + drawn + "\n")
    done = run("expand", file, "-o", out, "--max-quarantine", 1)
    assert done.returncode == 0, done.stderr
    m = manifest(out)
    bad = {b["file"]: b for b in map(json.loads, (out / "quarantine.jsonl").read_text().splitlines())}
    assert set(bad) <= {"birch/cut.jpg", "oak/cut.jpg"} and (bad or drawn.startswith("split"))
    for label in m["per_class"]:
        of_class = sum(len(b["positions"]) for b in bad.values() if b["class"] == label)
        assert all(b["class"] == name.split("/")[0] for name, b in bad.items())
        assert m["per_class"][label]["quarantined"] == of_class
    assert m["quarantined"] == sum(len(b["positions"]) for b in bad.values())
    again = good("expand", file, "-o", out, "--max-quarantine", 1)
    assert "already complete" in again.stdout + again.stderr


def test_links_that_lead_nowhere_are_passed_over_and_told(photos, pipeline, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(photos, folder)
    (folder / "oak" / "gone.jpg").symlink_to("nowhere.jpg")
    done = good("expand", pipeline(folder), "-o", tmp_path / "out")
    assert "1 files in" in done.stderr and manifest(tmp_path / "out")["planned"] == 48


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root, to become somebody else")
def test_a_file_that_may_not_be_read_is_quarantined(photos, pipeline, tmp_path):
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(photos, folder)
    program = shutil.copy(SHARDMILL, tmp_path)  # somebody else may not be able to see the build folder
    subprocess.run(["chmod", "-R", "a+rX", tmp_path], check=True)
    next((folder / "birch").iterdir()).chmod(0)
    file = pipeline(folder)
    out.mkdir(mode=0o777)
    out.chmod(0o777)
    for parent in [tmp_path, *tmp_path.parents]:
        if parent != parent.parent and parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o055)
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "expand", file, "-o", out],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    bad = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [b["code"] for b in bad] == ["unreadable"] and bad[0]["stage"] == "read"


def test_nothing_but_bad_samples_is_said_plainly(pipeline, tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    for i in range(3):
        (tmp_path / "data" / "a" / f"{i}.jpg").write_text("no picture")
    done = run("expand", pipeline(tmp_path / "data"), "-o", tmp_path / "out", timeout=60)
    assert done.returncode == 1 and "no sample was found" in done.stderr and "whole dataset" in done.stderr
    assert "others were tried 4 times" in done.stderr, "two as of the class, and two as of all"


@pytest.mark.parametrize("encode,extension", [("jpeg", "jpg"), ("png", "png"), ("webp", "webp")])
def test_every_encoding_decodes_to_the_declared_size(photos, pipeline, tmp_path, encode, extension):
    good("expand", pipeline(photos, expand=f"encode: {encode}"), "-o", tmp_path / "out")
    found = samples(tmp_path / "out")
    assert {s["extension"] for s in found} == {extension}
    assert {decode(s["bytes"]).size for s in found} == {(64, 64)}


@pytest.mark.parametrize("layout,dtype,shape", [("NCHW", "uint8", (3, 64, 64)), ("NHWC", "float32", (64, 64, 3)),
                                                ("NCHW", "float16", (3, 64, 64))])
def test_tensors_have_the_declared_shape_and_type(photos, pipeline, tmp_path, layout, dtype, shape):
    file = pipeline(photos, expand="encode: tensor")
    file.write_text(file.read_text() + f"output: {{layout: {layout}, dtype: {dtype}}}\n")
    good("expand", file, "-o", tmp_path / "out")
    for sample in samples(tmp_path / "out"):
        tensor = numpy.load(io.BytesIO(sample["bytes"]))
        assert sample["extension"] == "npy" and tensor.shape == shape and tensor.dtype == numpy.dtype(dtype)
        assert tensor.std() > 0


def test_originals_keep_the_source_files_bytes(photos, pipeline, tmp_path):
    good("expand", pipeline(photos, expand="originals: true"), "-o", tmp_path / "out")
    originals = [s for s in samples(tmp_path / "out") if s["json"]["copy"] == 0]
    assert len(originals) == 24
    for sample in originals:
        assert sample["bytes"] == (photos / sample["json"]["source"]).read_bytes()


def test_list_and_webdataset_sources_give_the_same_pictures(photos, pipeline, tmp_path):
    still = "  - Resize: {size: 64}\n  - CenterCrop: {size: 48}\n"
    kind = "encode: png"
    good("expand", pipeline(photos, ops=still, copies=1, expand=kind), "-o", tmp_path / "folder")
    listing = tmp_path / "list.txt"
    listing.write_text("# path and label\n" + "".join(f"{p}\t{p.parent.name}\n" for p in sorted(photos.glob("*/*"))))
    text = pipeline(listing, ops=still, copies=1, expand=kind, name="list.yaml")
    text.write_text(text.read_text().replace("format: folder", "format: list"))
    good("expand", text, "-o", tmp_path / "list")
    good("expand", pipeline(photos, ops=still, copies=1, expand="originals: true", name="pack.yaml"), "-o", tmp_path / "pack")
    tars = pipeline(f"{tmp_path}/pack/shard-{{000000..000002}}.tar", ops=still, copies=1, expand=kind, name="tar.yaml")
    tars.write_text(tars.read_text().replace("format: folder", "format: webdataset").replace(
        f"path: {tmp_path}/pack/shard-{{000000..000002}}.tar", f"path: '{tmp_path}/pack/shard-{{000000..000002}}.tar'"))
    good("expand", tars, "-o", tmp_path / "tars")

    def pictures_of(folder):
        return sorted((s["cls"], s["bytes"]) for s in samples(folder))

    assert pictures_of(tmp_path / "folder") == pictures_of(tmp_path / "list") == pictures_of(tmp_path / "tars")
    assert len(pictures_of(tmp_path / "tars")) == 24


def test_a_file_that_changed_after_indexing_is_named(photos, pipeline, tmp_path, start):
    folder, endpoint = tmp_path / "data", f"ipc://{tmp_path}/broker.sock"
    shutil.copytree(photos, folder)
    start("broker", "--bind", endpoint, "--state", tmp_path / "state")
    job = start("expand", pipeline(folder), "-o", tmp_path / "out", "--broker", endpoint)
    wait_until(lambda: list((tmp_path / "out").glob(".shardmill/index*")), what="the index")
    victim = next((folder / "oak").iterdir())
    victim.write_bytes(victim.read_bytes() + b"more")
    start("worker", "--broker", endpoint)
    _, stderr = job.process.communicate(timeout=60)
    assert job.process.returncode == 1 and f"oak/{victim.name}" in stderr and "changed" in stderr


@pytest.mark.parametrize("make,says", [
    (lambda d: None, "is not there"),
    (lambda d: d.mkdir(), "no sub-folders"),
    (lambda d: [(d / "full").mkdir(parents=True), (d / "full" / "x.png").write_bytes(b"x"), (d / "hollow").mkdir()], "hollow"),
])
def test_a_dataset_that_is_not_there_or_empty_is_said_plainly(pipeline, tmp_path, make, says):
    make(tmp_path / "data")
    done = run("expand", pipeline(tmp_path / "data"), "-o", tmp_path / "out")
    assert done.returncode in (1, 2) and says in done.stderr.lower() and str(tmp_path / "data") in done.stderr
    assert not list((tmp_path / "out").glob("shard-*")) if (tmp_path / "out").exists() else True


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_stops_with_the_path_and_keeps_what_is_there(photos, pipeline, tmp_path):
    out = tmp_path / "small"
    out.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "none", out], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        file = pipeline(photos, expand="encode: png", copies=8)
        done = run("expand", file, "-o", out, "--workers", 1)
        assert done.returncode == 1 and str(out) in done.stderr and re.search(r"\d+ bytes missing", done.stderr), done.stderr
        assert "resume" in done.stderr
        subprocess.run(["mount", "-o", "remount,size=60m", out], check=True)
        good("expand", file, "-o", out, "--workers", 1)
        good("expand", file, "-o", tmp_path / "roomy", "--workers", 2)
        assert digests(out) == digests(tmp_path / "roomy")
    finally:
        subprocess.run(["umount", "-l", out], check=True)


def test_usage_errors_exit_with_2(photos, pipeline, tmp_path):
    file = pipeline(photos)
    for args in (["expand", file], ["expand", file, "-o", tmp_path / "o", "--wrokers", 2],
                 ["expand", file, "-o", tmp_path / "o", "--slice", "4/3"],
                 ["expand", file, "-o", tmp_path / "o", "--workers", 0], ["expnad", file],
                 ["expand", tmp_path / "nothing.yaml", "-o", tmp_path / "o"]):
        done = run(*args)
        assert done.returncode == 2 and done.stderr.strip() and done.stdout == "", (args, done.stderr)
    assert "--workers" in run("expand", file, "-o", tmp_path / "o", "--wrokers", 2).stderr
    assert not (tmp_path / "o").exists()


def test_json_result_is_machine_readable(photos, pipeline, tmp_path):
    done = good("expand", pipeline(photos), "-o", tmp_path / "out", "--json", "--quiet")
    result = json.loads(done.stdout)
    assert result["planned"] == 48 and result["quarantined"] == 0 and done.stderr == ""


def test_slices_merged_equal_one_run(photos, pipeline, tmp_path):
    file, one, many = pipeline(photos, shard=5), tmp_path / "one", tmp_path / "many"
    good("expand", file, "-o", one)
    for k in (3, 1):
        good("expand", file, "-o", many, "--slice", f"{k}/3")
    missing = run("merge", many)
    assert missing.returncode == 1 and "2/3" in missing.stderr
    assert not (many / "manifest.json").exists()
    good("expand", file, "-o", many, "--slice", "2/3")
    good("merge", many, "--verify")
    assert digests(one) == digests(many) and not leftovers(many)
    good("merge", many)
    good("expand", file, "-o", many, "--slice", "1/3")
    assert digests(one) == digests(many)


def test_slices_of_other_seeds_do_not_merge(photos, pipeline, tmp_path):
    file, out = pipeline(photos), tmp_path / "out"
    good("expand", file, "-o", out, "--slice", "1/2")
    other = run("expand", file, "-o", out, "--slice", "2/2", "--seed", 99)
    assert other.returncode == 1 and "the seed" in other.stderr


def test_numbers_of_a_record_are_held_against_its_plan(photos, pipeline, tmp_path):
    file, out = pipeline(photos, shard=5), tmp_path / "out"
    for k in (1, 2):
        good("expand", file, "-o", out, "--slice", f"{k}/2")
    path = out / "slice-1-of-2.json"
    record = path.read_text()
    for right, wrong, told in [('"slices": 2', '"slices": 0', "not the record of a run"),
                               ('"samples": 5, "bytes"', '"samples": 0, "bytes"', "the plan has no shard"),
                               ('"name": "shard-000002', '"name": "shard-000001', "the plan has no shard"),
                               ('"name": "shard-000002', '"name": "shard-000099', "the plan has no shard")]:
        assert right in record
        path.write_text(record.replace(right, wrong))
        refused = run("merge", out)
        assert refused.returncode in (1, 2) and told in refused.stderr, (wrong, refused)
    path.write_text(record)
    good("merge", out)


def test_more_slices_than_shards(photos, pipeline, tmp_path):
    file, one, many = pipeline(photos, shard=40), tmp_path / "one", tmp_path / "many"
    good("expand", file, "-o", one)
    for k in range(1, 5):
        good("expand", file, "-o", many, "--slice", f"{k}/4")
    good("merge", many)
    assert digests(one) == digests(many)


@pytest.mark.skipif(shutil.which("parallel") is None, reason="GNU parallel is not installed")
def test_gnu_parallel_runs_an_expansion(photos, pipeline, tmp_path):
    file, one, many = pipeline(photos, shard=5), tmp_path / "one", tmp_path / "many"
    good("expand", file, "-o", one)
    subprocess.run(["parallel", "-j2", SHARDMILL, "expand", str(file), "-o", str(many), "--workers", "1", "--quiet",
                    "--slice", "{}/4", ":::", "1", "2", "3", "4"], check=True, capture_output=True, timeout=120,
                   env={**os.environ, "HOME": str(tmp_path)})
    good("merge", many)
    assert digests(one) == digests(many)


@pytest.mark.skipif(SANITIZED, reason="too slow there")
def test_two_hundred_real_pictures(pipeline, tmp_path):
    folder = tmp_path / "data"
    for class_name, path in pictures():
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        (folder / class_name / f"{len(list((folder / class_name).iterdir())):04d}-{path.name}").symlink_to(path)
    good("expand", pipeline(folder, copies=1, shard=64), "-o", tmp_path / "out", "--workers", 2)
    m = manifest(tmp_path / "out")
    assert m["planned"] >= 200 and m["quarantined"] == 0
