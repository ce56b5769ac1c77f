"""serve, read, submit, jobs, cancel, replay, top: one job from the command line, and what they say when it cannot be."""
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import time

import numpy
import pytest
from conftest import SANITIZED, SHARDMILL, Started, good, processes, run, samples, wait_until
from stream import SLOWER, Ledger, Served, due, write_pipeline

POSITIONS, BATCH = 24, 4  # of the fixture `photos`


@pytest.fixture(scope="module")
def plan(photos, tmp_path_factory):
    """(file, lines of an epoch for worlds of 1 and 2), made by replay: no broker, no socket."""
    file = write_pipeline(tmp_path_factory.mktemp("plan") / "stream.yaml", photos, batch=5)
    lines = {}
    for world in (1, 2):
        for rank in range(world):
            steps = -(-POSITIONS // (5 * world))
            lines[world, rank] = [json.loads(good("replay", file, "--epoch", 0, "--step", k, "--rank", rank,
                                                  "--world-size", world).stdout) for k in range(steps)]
    return file, lines


@pytest.mark.parametrize("way", ["ipc", "tcp", "tcp with keys"])
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_digests_are_the_same_for_any_number_of_workers_ranks_and_any_transport(plan, tmp_path, start, workers, way):
    """ipc: batches in memory of this host; tcp: batches in pieces, too, and all of it encrypted."""
    file, lines = plan
    bind = f"ipc://{tmp_path}/b" if way == "ipc" else "tcp://127.0.0.1:*"
    server, client = [], ["--transport", "shm" if way == "ipc" else "tcp"]
    if way == "tcp with keys":
        good("keygen", tmp_path / "server")
        good("keygen", tmp_path / "trainer", "--join", tmp_path / "server")
        server, client = ["--keys", tmp_path / "server"], [*client, "--keys", tmp_path / "trainer"]
    served = Served(start, file, tmp_path / "state", "--workers", workers, *server, bind=bind)
    assert served.lines(*client) == lines[1, 0]
    assert served.together(2, *client) == [lines[2, 0], lines[2, 1]]


def test_the_summary_has_an_audit_a_digest_and_a_verdict(plan, tmp_path, start):
    file, _ = plan
    served = Served(start, file, tmp_path / "state", "--workers", 1)
    first = json.loads(served.read("--json", "--epochs", 2).stdout)
    again = json.loads(served.read("--json", "--epochs", 2, "--transport", "tcp").stdout)
    assert [e["digest"] for e in first["epochs"]] == [e["digest"] for e in again["epochs"]]
    assert first["epochs"][0]["digest"] != first["epochs"][1]["digest"]
    for epoch, audit in enumerate(first["epochs"]):
        assert audit == {"epoch": epoch, "steps": 5, "planned": POSITIONS, "delivered": POSITIONS, "padded": 1, "dropped": 0,
                         "quarantined": 0, "digest": audit["digest"], "classes": audit["classes"]}
        assert sum(c["delivered"] for c in audit["classes"]) == POSITIONS
        assert all(c["delivered"] == c["drawn"] == c["present"] for c in audit["classes"])
    assert first["samples"] == 50 and first["padding"] == 2 and first["bytes"] == 50 * 3 * 48 * 48
    assert first["transport"] == "shm" and again["transport"] == "tcp"
    assert first["limit"] in ("workers", "trainer", "disk", "network") and first["verdict"]
    for _ in range(10):  # on a busy machine even such a trainer waits for its batches: the verdict is right then, and another
        held = json.loads(served.read("--json", "--hold", 300, "--epochs", 1).stdout)
        if held["limit"] == "trainer":
            break
        assert held["seconds"] > 5 * 0.3 * 1.04, held
    assert held["limit"] == "trainer" and held["workers_enough"] == 1, held
    said = served.read().stdout
    assert re.search(r"epoch 0: 24 planned, 24 delivered, 1 padded", said) and "limited by the " in said


@pytest.mark.parametrize("layout,dtype", [("NCHW", "uint8"), ("NHWC", "float32")])
def test_online_tensors_equal_the_offline_ones(photos, tmp_path, start, layout, dtype):
    file = write_pipeline(tmp_path / "p.yaml", photos, layout=layout, dtype=dtype)
    good("expand", file, "-o", tmp_path / "out", "--workers", 1)
    offline = {s["json"]["position"]: s for s in samples(tmp_path / "out")}
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    for line in served.lines():
        replayed = good("replay", served.name, "--broker", served.endpoint, "--step", line["step"], "--tensor", tmp_path / "t.npy")
        assert json.loads(replayed.stdout) == line
        online = numpy.load(tmp_path / "t.npy")
        for i, (position, _) in enumerate(due(POSITIONS, BATCH, 0, 1)[line["step"] * BATCH:(line["step"] + 1) * BATCH]):
            assert offline[position]["bytes"].endswith(online[i].tobytes()) and online[i].nbytes > 6000
    assert len(offline) == POSITIONS


def test_a_run_resumes_anywhere_with_another_number_of_trainers(photos, tmp_path, start):
    file = write_pipeline(tmp_path / "p.yaml", photos, batch=2, size=32)
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    chance = random.Random(9)
    served.read("--steps", 1, "--ledger", tmp_path / "start", "--no-commit", "--quiet")
    begin = re.sub(r":0:\d+:", ":0:0:", Ledger(tmp_path / "start").token, count=1)
    for turn in range(10):
        before, after = chance.sample([1, 2, 3], 2)
        steps = chance.randrange(1, POSITIONS // (2 * before))
        history, tokens = [], set()
        for rank in range(before):
            path = tmp_path / f"{turn}-before-{rank}"
            served.read("--rank", rank, "--world-size", before, "--steps", steps, "--token", begin, "--ledger", path, "--quiet")
            history += Ledger(path).real()
            tokens.add(Ledger(path).token)
        assert len(tokens) == 1, "all ranks stand at the same global position"
        for rank in range(after):
            path = tmp_path / f"{turn}-after-{rank}"
            served.read("--rank", rank, "--world-size", after, "--token", min(tokens), "--ledger", path, "--no-commit",
                        "--quiet")
            history += Ledger(path).real()
        assert sorted(p for e, p, *_ in history if e == 0) == list(range(POSITIONS)), (before, after, steps)


def test_without_a_token_a_trainer_goes_on_from_its_last_commit(photos, tmp_path, start):
    file = write_pipeline(tmp_path / "p.yaml", photos, batch=2)
    served = Served(start, file, tmp_path / "state", "--workers", 1)
    served.read("--steps", 5, "--ledger", tmp_path / "one", "--checkpoint", 2, "--quiet")
    os.kill(served.family("broker")[0], signal.SIGKILL)
    assert Ledger(tmp_path / "one").samples[-1][1] == 9
    first = served.lines()[0]
    assert first == json.loads(good("replay", file, "--step", 5).stdout)


def test_after_the_death_of_a_worker_or_the_broker_batches_come_again_soon(photos, tmp_path, start):
    file = write_pipeline(tmp_path / "p.yaml", photos, batch=2)
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    served.wait_for_workers(2)
    reader = served.reader("--digest", "--epochs", 0, "--credit", 1, "--quiet")  # nobody reads its stderr
    ahead = (1 << 20) // (2 * 3 * 48 * 48) + 1  # batches within its credit: they outlive who made them
    longest = {"worker": [], "broker": []}
    try:
        for role in ("worker", "broker") * 3:
            for _ in range(20):
                assert reader.stdout.readline()
            for pid in served.family(role):
                os.kill(pid, signal.SIGKILL)
            last = time.monotonic()
            longest[role].append(0)
            for _ in range(ahead + 100):
                assert reader.stdout.readline(), reader.stderr.read()
                longest[role][-1], last = max(longest[role][-1], time.monotonic() - last), time.monotonic()
    finally:
        reader.kill()
        reader.communicate()
    # the best of three: what waits for a silence to be noticed is late each time, a busy machine is not
    assert min(longest["worker"]) < 2 * SLOWER and min(longest["broker"]) < 3 * SLOWER, longest


def rss(pid):
    """Bytes of a process, with the shared memory that it touched."""
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) * 1024


STALL_S = int(os.environ.get("SHARDMILL_STALL_S", "20"))  # `make chaos` waits ten minutes


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps what is freed for a while")
def test_a_trainer_that_stalls_makes_nothing_grow(photos, tmp_path, start):
    credit = 4 << 20
    file = write_pipeline(tmp_path / "p.yaml", photos, batch=4, size=128)
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    served.wait_for_workers(2)
    served.read("--epochs", 20, "--credit", credit >> 20)  # warm
    watched = served.family("worker") + served.family("broker")
    before = {pid: rss(pid) for pid in watched}
    reader = served.reader("--hold", 1000 * STALL_S + 40000, "--credit", credit >> 20)
    try:
        time.sleep(STALL_S)  # at full speed its workers would make gigabytes
        after = {pid: rss(pid) for pid in watched}
    finally:
        reader.terminate()
        reader.communicate()
    grown = sum(after[pid] - before[pid] for pid in watched)
    assert grown <= credit, f"{grown} bytes more, {credit} credit"
    assert served.lines("--steps", 2)  # and the others were never held up


def test_replay_makes_a_sheet_and_refuses_what_is_not_there(plan, tmp_path):
    file, lines = plan
    done = good("replay", file, "--step", 2, "-o", tmp_path / "sheet.png")
    assert json.loads(done.stdout) == lines[1, 0][2]
    assert (tmp_path / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for args, says in ((("--step", 5), "has 5"), (("--step", 0, "--rank", 1), "--rank"), (("--step", 0, "--position", 25), "24"),
                       ((), "--step")):
        refused = run("replay", file, *args)
        assert refused.returncode == 2 and says in refused.stderr, refused.stderr


def test_submit_jobs_cancel_with_a_broker_that_stays(photos, tmp_path, start):
    endpoint = f"ipc://{tmp_path}/b"
    start("broker", "--bind", endpoint, "--state", tmp_path / "state")
    start("worker", "--broker", endpoint)
    file = write_pipeline(tmp_path / "p.yaml", photos, name="petals")
    job = json.loads(good("submit", file, "--broker", endpoint, "--state", tmp_path / "mine", "--epochs", 2, "--json").stdout)
    assert job["samples"] == POSITIONS and job["steps"] == 6 and job["name"] == "petals"
    again = good("submit", file, "--broker", endpoint, "--state", tmp_path / "mine", "--epochs", 2).stdout.strip()
    assert again == job["job"], "the same file again is the same job"
    listed = [json.loads(line) for line in good("jobs", "--json", "--broker", endpoint).stdout.splitlines()]
    assert [(j["job"], j["name"], j["state"]) for j in listed] == [(job["job"], "petals", "running")]
    assert good("read", "petals", "--broker", endpoint, "--steps", 3, "--digest").stdout.count("\n") == 3
    wrong = run("cancel", "petal", "--broker", endpoint)
    assert wrong.returncode == 1 and "no job 'petal'" in wrong.stderr and "did you mean 'petals'?" in wrong.stderr
    assert good("cancel", "petals", "--broker", endpoint).stdout.strip() == job["job"]
    assert "cancelled" in good("jobs", "--broker", endpoint).stdout
    refused = run("read", "petals", "--broker", endpoint, "--timeout", 10)
    assert refused.returncode == 1 and "cancelled" in refused.stderr
    shutil.rmtree(tmp_path / "mine")
    start("worker", "--broker", endpoint)  # has not seen the index
    good("submit", file, "--broker", endpoint, "--state", tmp_path / "yours", "--epochs", 2)
    assert len(good("read", job["job"], "--broker", endpoint, "--epochs", 0, "--digest").stdout.splitlines()) == 12


def test_a_changed_pipeline_is_served_under_its_name_and_the_old_one_goes_on_later(photos, tmp_path, start):
    file = write_pipeline(tmp_path / "p.yaml", photos, name="same", seed=1)
    first = Served(start, file, tmp_path / "state", "--workers", 1)
    lines = first.lines("--steps", 2, "--ledger", tmp_path / "ledger", "--checkpoint", 1)
    first.started.end()
    write_pipeline(file, photos, name="same", seed=2)
    second = Served(start, file, tmp_path / "state", "--workers", 1)
    assert second.name == "same" and second.lines("--steps", 2) != lines
    assert sorted(json.loads(line)["state"] for line in good("jobs", "--json", "--broker", second.endpoint).stdout.splitlines()) == [
        "cancelled", "running"]
    second.started.end()
    write_pipeline(file, photos, name="same", seed=1)
    third = Served(start, file, tmp_path / "state", "--workers", 1)
    assert [line["step"] for line in third.lines("--steps", 1)] == [2], "behind what was committed"


def test_serve_ends_when_its_epochs_were_read_and_leaves_nothing(photos, tmp_path, start):
    file = write_pipeline(tmp_path / "p.yaml", photos)
    served = Served(start, file, tmp_path / "state", "--workers", 1, "--epochs", 1)
    served.read("--epochs", 0)
    assert served.started.process.wait(timeout=60 * SLOWER) == 0
    assert not served.family()


def test_a_signal_ends_serve_in_seconds_and_with_the_parent(photos, tmp_path, start):
    file = write_pipeline(tmp_path / "p.yaml", photos)
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    began = time.monotonic()
    served.started.process.terminate()
    assert served.started.process.wait(timeout=30) == 0
    assert time.monotonic() - began < 5 * SLOWER and not served.family()
    marker = f"SHARDMILL_TEST={os.getpid()}-orphan"
    name, _, value = marker.partition("=")
    parent = subprocess.Popen(["sh", "-c", f"'{SHARDMILL}' serve '{file}' --bind 'tcp://127.0.0.1:*' --state '{tmp_path}/s' "
                               "--die-with-parent --workers 1; true"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True, env={**os.environ, name: value})
    assert parent.stdout.readline().startswith("serving ")
    parent.kill()
    parent.communicate()
    wait_until(lambda: not processes(marker), 60 * SLOWER, "the end of serve")


@pytest.fixture(scope="module")
def asked(photos, tmp_path_factory):
    """A served pipeline that refuses; nothing here may disturb it."""
    running = []

    def begin(*args, **more):
        running.append(Started(*args, **more))
        return running[-1]

    folder = tmp_path_factory.mktemp("asked")
    file = write_pipeline(folder / "p.yaml", photos)
    yield Served(begin, file, folder / "state", "--workers", 1), folder
    running[0].end()


def test_a_second_serve_at_the_same_place_or_state_is_refused(asked):
    served, folder = asked
    for args, says in ((("--bind", served.endpoint, "--state", folder / "other"), "another broker"),
                       (("--bind", "tcp://127.0.0.1:*", "--state", folder / "state"), "another serve")):
        done = run("serve", folder / "p.yaml", "--workers", 1, *args, timeout=60)
        assert done.returncode == 1 and says in done.stderr and "hint" in done.stderr, done.stderr
    assert served.started.process.poll() is None


def test_an_unknown_job_is_named(asked):
    served, _ = asked
    done = run("read", "strem", "--broker", served.endpoint, "--timeout", 10)
    assert done.returncode == 1 and "strem" in done.stderr, done.stderr


def test_a_rank_outside_of_its_world_is_wrong_use(asked):
    served, _ = asked
    done = run("read", served.name, "--broker", served.endpoint, "--rank", 2, "--world-size", 2)
    assert done.returncode == 2 and "--rank is 2" in done.stderr


@pytest.mark.parametrize("token", ["", "nonsense", "0 0", "x" * 300])
def test_a_token_that_is_none_is_refused(asked, token):
    served, _ = asked
    done = run("read", served.name, "--broker", served.endpoint, "--token", token or "-", "--timeout", 10)
    assert done.returncode == 1 and "token" in done.stderr, done.stderr


def test_a_token_of_another_seed_pipeline_or_dataset_is_refused_by_name(asked, photos, tmp_path, start):
    served, _ = asked
    data = tmp_path / "data"
    for path in sorted(photos.glob("*/*"))[:20]:
        (data / path.parent.name).mkdir(parents=True, exist_ok=True)
        (data / path.parent.name / path.name).write_bytes(path.read_bytes())
    for what, more in (("seed", {"seed": 12}), ("pipeline", {"size": 40}), ("dataset", {"path": data})):
        file = write_pipeline(tmp_path / f"{what}.yaml", **{"path": photos, **more})
        other = Served(start, file, tmp_path / what, "--workers", 1)
        other.read("--steps", 1, "--ledger", tmp_path / f"{what}.ledger", "--quiet")
        token = Ledger(tmp_path / f"{what}.ledger").token
        other.started.process.terminate()
        other.started.process.wait()
        done = run("read", served.name, "--broker", served.endpoint, "--token", token, "--timeout", 10)
        assert done.returncode == 1 and what in done.stderr, done.stderr


def test_a_rank_that_is_taken_and_another_world_size_are_refused(asked):
    served, _ = asked
    reader = served.reader("--digest", "--hold", 60000)
    try:
        assert reader.stdout.readline()
        sessions = json.loads(good("jobs", "--json", "--broker", served.endpoint).stdout)["sessions"]
        assert [(s["rank"], s["world_size"]) for s in sessions] == [(0, 1)]
        twice = run("read", served.name, "--broker", served.endpoint, "--timeout", 10)
        assert twice.returncode == 1 and "rank 0" in twice.stderr, twice.stderr
        other = run("read", served.name, "--broker", served.endpoint, "--rank", 1, "--world-size", 3, "--timeout", 10)
        assert other.returncode == 1 and "world" in other.stderr, other.stderr
        assert reader.poll() is None
    finally:
        reader.terminate()
        reader.communicate()


@pytest.mark.parametrize("more,says", [("output: {batch_size: 70000}", "batch_size"),
                                       ("ops:\n  - Resize: {size: 64}", "sizes of their own"),
                                       ("output: {batch_size: 60000}\nops:\n  - Resize: {size: [224, 224]}", "batch_size")])
def test_a_pipeline_that_makes_no_batches_is_refused_before_anything_starts(photos, tmp_path, more, says):
    file = tmp_path / "p.yaml"
    file.write_text(f"version: 1\nname: p\nsource: {{format: folder, path: {photos}}}\n{more}\n")
    done = run("serve", file, "--state", tmp_path / "state", timeout=20)
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert not (tmp_path / "state").exists()


def test_top_shows_one_frame_where_there_is_no_terminal(asked):
    served, _ = asked
    done = good("top", "--broker", served.endpoint)
    assert served.name in done.stdout and "\033" not in done.stdout
