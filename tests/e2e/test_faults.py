"""Kills, signals and strangers: whatever dies, the run ends in the same bytes, and nothing is left behind."""
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time

import pytest
from conftest import SANITIZED, digests, good, leftovers, pictures, processes, run, wait_until

SLOW = "  - RandomResizedCrop: {size: 448}\n  - ColorJitter: {brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1}\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """whole(file, options…): the digests of an undisturbed run, made once for each pipeline."""
    made = {}

    def digests_of(file, *options):
        key = file.read_bytes(), options
        if key not in made:
            out = tmp_path_factory.mktemp("whole") / "out"
            good("expand", file, "-o", out, "--workers", 2, *options)
            made[key] = digests(out)
        return made[key]

    return digests_of


def abstract_sockets(name):
    with open("/proc/net/unix", encoding="ascii", errors="replace") as table:
        return [line.split()[-1] for line in table if line.rstrip().endswith(name)]


def endpoint_of(job):
    """The abstract address of an embedded broker, from the command line of its workers."""
    commands = processes(job.marker).values()
    return next((c.split("ipc://")[1].split()[0] for c in commands if "ipc://@shardmill-" in c), None)


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except ProcessLookupError:
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_drains_in_seconds_and_the_run_resumes(photos, pipeline, tmp_path, start, number, whole):
    file, out = pipeline(photos, ops=SLOW, copies=20, shard=30), tmp_path / "out"
    job = start("expand", file, "-o", out, "--workers", 2)
    wait_until(lambda: list(out.glob("*.part")) or list(out.glob("shard-*.tar")), what="a first part")
    began = time.monotonic()
    send(job.process.pid, number)
    _, stderr = job.process.communicate(timeout=30)
    assert time.monotonic() - began < (20 if SANITIZED else 5)
    assert job.process.returncode == 1 and "resume" in stderr and str(out) in stderr
    assert not job.family()
    assert not (out / "manifest.json").exists()
    good("expand", file, "-o", out, "--workers", 2)
    assert digests(out) == whole(file) and not leftovers(out)


def test_a_run_resumes_with_another_number_of_workers(photos, pipeline, tmp_path, start, whole):
    file, out = pipeline(photos, ops=SLOW, copies=20, shard=100), tmp_path / "out"
    job = start("expand", file, "-o", out, "--workers", 1, "--lease", 9)
    wait_until(lambda: list(out.glob("*.part")) or list(out.glob("shard-*.tar")), what="a first part")
    send(job.process.pid, signal.SIGKILL)
    job.process.wait()
    wait_until(lambda: not job.family(), what="the end of the family")
    good("expand", file, "-o", out, "--workers", 2, "--lease", 40)
    assert digests(out) == whole(file) and not leftovers(out)


def test_a_shard_that_is_taken_away_between_two_runs_is_not_in_the_manifest(photos, pipeline, tmp_path, start, whole):
    file, out = pipeline(photos, ops=SLOW, copies=20, shard=10), tmp_path / "out"
    job = start("expand", file, "-o", out, "--workers", 2)
    wait_until(lambda: len(list(out.glob("shard-*.tar"))) > 2, what="finished shards")
    send(job.process.pid, signal.SIGINT)
    job.process.wait()
    (out / "shard-000000.tar").unlink()
    again = run("expand", file, "-o", out, "--workers", 2)
    assert again.returncode == 1 and "shard-000000.tar" in again.stderr and not (out / "manifest.json").exists()
    good("expand", file, "-o", out, "--workers", 2)
    assert digests(out) == whole(file) and not leftovers(out)


def test_the_line_that_resumes_a_run_can_be_pasted_into_a_shell(photos, pipeline, tmp_path, start, whole):
    file, out = pipeline("elsewhere", ops=SLOW, copies=20, shard=30), tmp_path / "an 'odd' name"
    job = start("expand", file, "-o", out, "--source", photos, "--seed", 3, "--epoch", 2, "--workers", 2)
    wait_until(lambda: list(out.glob("*.part")) or list(out.glob("shard-*.tar")), what="a first part")
    send(job.process.pid, signal.SIGINT)
    _, stderr = job.process.communicate(timeout=30)
    line = shlex.split(stderr.rsplit("to resume: ", 1)[1])
    assert line[0] == "shardmill"
    good(*line[1:])
    assert digests(out) == whole(file, "--source", photos, "--seed", 3, "--epoch", 2)


def test_kill_9_of_the_parent_leaves_no_process_and_no_socket(photos, pipeline, tmp_path, start, whole):
    file, out = pipeline(photos, ops=SLOW, copies=20, shard=30), tmp_path / "out"
    job = start("expand", file, "-o", out, "--workers", 2)
    wait_until(lambda: len(job.family()) >= 6, what="broker, workers and cages")
    address = endpoint_of(job)
    assert abstract_sockets(address)
    send(job.process.pid, signal.SIGKILL)
    job.process.wait()
    wait_until(lambda: not job.family(), what="the end of the family")
    assert not abstract_sockets(address)
    good("expand", file, "-o", out, "--workers", 2)
    assert digests(out) == whole(file) and not leftovers(out)


def test_a_second_expand_into_the_same_folder_is_refused(photos, pipeline, tmp_path, start):
    file, out = pipeline(photos, ops=SLOW, copies=40), tmp_path / "out"
    start("expand", file, "-o", out, "--workers", 1)
    wait_until(lambda: (out / ".shardmill" / "state.db").exists(), what="the journal")
    second = run("expand", file, "-o", out, timeout=60)
    assert second.returncode == 1 and "another expand" in second.stderr


def test_a_second_broker_on_the_same_state_is_refused(tmp_path, start):
    state = tmp_path / "state"
    start("broker", "--bind", f"ipc://{tmp_path}/a", "--state", state)
    wait_until(lambda: (state / "state.db").exists(), what="the journal")
    second = run("broker", "--bind", f"ipc://{tmp_path}/b", "--state", state, timeout=60)
    assert second.returncode == 1 and str(state) in second.stderr


def test_a_bind_outside_the_host_is_refused(tmp_path):
    done = run("broker", "--bind", "tcp://0.0.0.0:5999", "--state", tmp_path / "s", timeout=60)
    assert done.returncode in (1, 2) and "0.0.0.0" in done.stderr


def test_broker_and_workers_one_by_one_with_garbage_on_the_socket(photos, pipeline, tmp_path, start):
    broker = start("broker", "--bind", "tcp://127.0.0.1:*", "--state", tmp_path / "state")
    endpoint, port = re.match(r"broker at (tcp://127.0.0.1:(\d+)),", broker.process.stdout.readline()).groups()
    for _ in range(2):
        start("worker", "--broker", endpoint)
    file = pipeline(photos, ops=SLOW, copies=4)
    job = start("expand", file, "-o", tmp_path / "out", "--broker", endpoint)
    noise = random.Random(5)
    for _ in range(40):
        with socket.create_connection(("127.0.0.1", int(port))) as s:
            s.sendall(noise.randbytes(noise.randrange(1, 4000)))
    # a ZMTP greeting and a garbage message, as a stranger with a library would send it
    with socket.create_connection(("127.0.0.1", int(port))) as s:
        s.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48))
        s.sendall(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER")
        try:
            for _ in range(20):
                s.sendall(b"\x00\x40" + noise.randbytes(64))
                time.sleep(0.01)
        except OSError:
            pass  # hung up on: also an answer
    status = good("status", "--broker", endpoint, "--json")
    assert '"workers"' in status.stdout
    job.process.communicate(timeout=120)
    assert job.process.returncode == 0
    good("expand", file, "-o", tmp_path / "own")
    assert digests(tmp_path / "out") == digests(tmp_path / "own")


def test_status_says_when_nobody_answers(tmp_path):
    done = run("status", "--broker", f"ipc://{tmp_path}/nobody", timeout=60)
    assert done.returncode == 1 and "no answer" in done.stderr.lower() or "does not answer" in done.stderr.lower()


def test_a_stopped_worker_that_wakes_up_late_changes_nothing(photos, pipeline, tmp_path, start, whole):
    endpoint = f"ipc://{tmp_path}/b"
    file, out = pipeline(photos, ops=SLOW, copies=10, shard=30), tmp_path / "out"
    start("broker", "--bind", endpoint, "--state", tmp_path / "state", "--heartbeat-ms", 250)
    sleeper = start("worker", "--broker", endpoint)
    job = start("expand", file, "-o", out, "--broker", endpoint)
    wait_until(lambda: list(out.glob(".tmp-*")) or list(out.glob("*.part")), what="work")
    for pid in sleeper.family():
        send(pid, signal.SIGSTOP)
    wait_until(lambda: not json.loads(good("status", "--json", "--broker", endpoint).stdout)["workers"], what="its death")
    start("worker", "--broker", endpoint)
    wait_until(lambda: len(list(out.glob("*.part"))) > 1 or list(out.glob("shard-*.tar")), what="its lease in another's hands")
    for pid in sleeper.family():
        send(pid, signal.SIGCONT)
    job.process.communicate(timeout=120)
    assert job.process.returncode == 0
    assert digests(out) == whole(file)


KILLS = int(os.environ.get("SHARDMILL_KILLS", "60"))


def test_sixty_kills_on_real_pictures_end_in_the_same_bytes(pipeline, tmp_path, start):
    """kill -9 of workers, cages, the broker and of everything, on at least 200 pictures x 3 copies."""
    folder = tmp_path / "data"
    for class_name, path in pictures():
        (folder / class_name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / class_name / f"{len(list((folder / class_name).iterdir())):04d}-{path.name}")
    file = pipeline(folder, ops=SLOW, copies=3, shard=100)
    good("expand", file, "-o", tmp_path / "calm", "--workers", 2)
    calm = digests(tmp_path / "calm")
    chance = random.Random(20)
    kills = {"worker": 0, "cage": 0, "broker": 0, "everything": 0}
    rounds = 0
    while sum(kills.values()) < KILLS or rounds == 0:
        out = tmp_path / f"wild-{rounds}"
        rounds += 1
        assert rounds < 20 + KILLS, "the runs end before they can be killed"
        while not (out / "manifest.json").exists():
            job = start("expand", file, "-o", out, "--workers", chance.choice([1, 2, 4]), "--lease", 8)
            while job.process.poll() is None:
                time.sleep(chance.expovariate(1 / 0.25))
                if sum(kills.values()) >= KILLS:
                    break
                role = chance.choices(list(kills), [5, 2, 2, 1])[0]
                if role == "everything":
                    killed = [send(pid, signal.SIGKILL) for pid in job.family()]
                else:
                    family = job.family(role)
                    killed = [send(chance.choice(family), signal.SIGKILL)] if family else []
                kills[role] += any(killed)
            _, stderr = job.process.communicate(timeout=300)
            assert job.process.returncode in (0, -signal.SIGKILL), stderr
        assert digests(out) == calm
        assert not leftovers(out)
        shutil.rmtree(out)
    assert not processes(f"SHARDMILL_TEST={os.getpid()}-")
    print(f"{kills} in {rounds} runs")
    assert all(kills.values()), kills
