"""The C client library against real brokers and workers: the example, both transports, ranks, resumption, and kills."""
import json
import os
import pathlib
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import ROOT, SHARDMILL, Started, run, wait_until

BUILD = pathlib.Path(os.environ.get("BUILD", pathlib.Path(SHARDMILL).parent))
BATCH = 3
PHOTOS = 24  # of the fixture

PIPELINE = """\
version: 1
name: pets
seed: 7
source: {{format: folder, path: {path}}}
ops:
  - RandomResizedCrop: {{size: {size}}}
  - RandomHorizontalFlip
output: {{batch_size: {batch}, shuffle: true, drop_last: {drop}}}
"""


def serve(start, folder, photos, size=48, batch=BATCH, drop="false"):
    """`serve` of 24 pictures: (the process, endpoint)."""
    file = folder / "p.yaml"
    file.write_text(PIPELINE.format(path=photos, size=size, batch=batch, drop=drop))
    process = start("serve", file, "--bind", "tcp://127.0.0.1:*", "--workers", 2, "--state", folder / "state")
    line = process.process.stdout.readline()
    assert line.startswith("serving pets at "), line
    return process, line.split()[-1]


@pytest.fixture
def served(start, tmp_path, photos):
    return lambda **more: serve(start, tmp_path, photos, **more)


@pytest.fixture(scope="module")
def pets(tmp_path_factory, photos):
    """One server for the tests that say by a token where they begin: its endpoint."""
    process, endpoint = serve(Started, tmp_path_factory.mktemp("pets"), photos)
    yield endpoint
    process.end()


@pytest.fixture
def parts(start, tmp_path, photos):
    """A broker and workers, one by one, with the job submitted: (start broker, start worker, endpoint, what to submit)."""
    file = tmp_path / "p.yaml"
    file.write_text(PIPELINE.format(path=photos, size=48, batch=BATCH, drop="false"))
    endpoint = f"ipc://{tmp_path}/b"

    def broker():
        return start("broker", "--bind", endpoint, "--state", tmp_path / "state", "--heartbeat-ms", 300,
                     stderr=subprocess.DEVNULL)

    def worker():
        return start("worker", "--broker", endpoint, stderr=subprocess.DEVNULL)

    return broker, worker, endpoint, (file, "--broker", endpoint, "--state", tmp_path / "state")


def read(endpoint, *more, check=True, job="pets"):
    done = subprocess.run([BUILD / "tools" / "client_run", endpoint, job, *more], capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stdout[-2000:] + done.stderr
    return Read(done.stdout, done)


class Read:
    def __init__(self, text, done=None):
        self.done = done
        self.steps, self.lines, self.token, self.info = [], [], None, None
        for line in text.splitlines():
            word, _, rest = line.partition(" ")
            if word == "token":
                self.token = rest
            elif word == "info":
                self.info = json.loads(rest)
            elif word.isdigit():
                fields = line.split()
                self.steps.append((int(fields[0]), int(fields[1]), int(fields[2]), fields[3], [*map(int, fields[4:])]))
                self.lines.append(line)

    def positions(self):
        return [p for _, _, padding, _, positions in self.steps for p in positions[:len(positions) - padding]]


def background(endpoint, *more, job="pets", stdout=subprocess.PIPE):
    return subprocess.Popen([BUILD / "tools" / "client_run", endpoint, job, *more], stdout=stdout,
                            stderr=subprocess.PIPE, text=True)


def finished(process):
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, out[-2000:] + error
    return Read(out)


def token_of(endpoint, epoch, position=0):
    """The token of a place."""
    fields = read(endpoint, "steps=1").token.split(":")
    return ":".join([fields[0], str(epoch), str(position), *fields[3:]])


@pytest.fixture(scope="module")
def first(pets):
    """The token of the start."""
    return "token=" + token_of(pets, 0)


def test_example_reads_and_resumes(pets, first, tmp_path):
    example = BUILD / "client_example"
    (tmp_path / "a").write_text(first.partition("=")[2])
    whole = subprocess.run([example, pets, "pets", tmp_path / "a"], capture_output=True, text=True, timeout=60)
    assert whole.returncode == 0, whole.stderr
    lines = whole.stdout.splitlines()
    assert len(lines) == PHOTOS // BATCH + 1 and lines[-1] == "end of the epoch"
    assert (tmp_path / "a").read_text().startswith("shardmill-1:1:0:7:")
    # from a checkpoint in the middle, the rest and nothing else
    token = (tmp_path / "a").read_text().replace("shardmill-1:1:0:", f"shardmill-1:0:{3 * BATCH}:")
    (tmp_path / "b").write_text(token)
    rest = subprocess.run([example, pets, "pets", tmp_path / "b"], capture_output=True, text=True, timeout=60)
    assert rest.stdout.splitlines() == lines[3:], rest.stderr


def test_memory_and_tcp_bring_the_same(served):
    _, endpoint = served(size=224, batch=8)  # two pieces
    memory = read(endpoint, "transport=shm", "epochs=2")
    tcp = read(endpoint, "transport=tcp", "epochs=2", "token=" + token_of(endpoint, 0))
    assert memory.lines == tcp.lines and len(memory.lines) == 6
    assert memory.info["transport"] == "shm" and tcp.info["transport"] == "tcp"
    assert memory.info["audit"]["digest"] == tcp.info["audit"]["digest"]
    for epoch in (0, 1):
        assert sorted(p for e, _, _, _, ps in memory.steps if e == epoch for p in ps) == list(range(PHOTOS))
    assert memory.info["audit"]["planned"] == memory.info["audit"]["delivered"] == PHOTOS


@pytest.mark.parametrize("drop", ["false", "true"])
def test_ranks_get_the_same_number_of_steps(served, drop):
    _, endpoint = served(batch=5, drop=drop)
    ranks = [background(endpoint, f"rank={r}", "world=2") for r in range(2)]
    got = [finished(r) for r in ranks]
    steps = 2 if drop == "true" else 3
    assert [len(g.steps) for g in got] == [steps, steps]
    assert sorted(got[0].positions() + got[1].positions()) == list(range(20 if drop == "true" else PHOTOS))


def test_another_world_size_goes_on(pets, first):
    begun = read(pets, first, "steps=3")
    ranks = [background(pets, f"rank={r}", "world=2", f"token={begun.token}") for r in range(2)]
    got = [finished(r) for r in ranks]
    assert len(got[0].steps) == len(got[1].steps)
    assert sorted(begun.positions() + got[0].positions() + got[1].positions()) == list(range(PHOTOS))


def test_without_a_token_from_the_last_commit(pets, first):
    begun = read(pets, first, "steps=3", "commit=1")
    assert begun.info["committed"] == {"epoch": 0, "position": 3 * BATCH}
    assert begun.positions() + read(pets).positions() == list(range(PHOTOS))


LITTLE = "credit=50000"  # two batches ahead: what is killed is missed soon


def disturbed(reader, disturb, times, every=8):
    """Lines of a reader while disturb() is called after each `every` of them."""
    text = ""
    for _ in range(times):
        for _ in range(every):
            text += reader.stdout.readline()
        disturb()
    text += reader.stdout.read()  # not communicate(), which knows nothing of what readline() has read ahead
    error = reader.stderr.read()
    assert reader.wait(timeout=120) == 0, text[-2000:] + error
    return Read(text)


def test_worker_killed_while_its_batches_are_read(served):
    process, endpoint = served()
    expected = read(endpoint, "epochs=6").lines
    reader = background(endpoint, "epochs=6", "hold=1", LITTLE, "token=" + token_of(endpoint, 0))

    def kill():
        worker = wait_until(lambda: process.family("worker"), what="a worker")[0]
        os.kill(worker, signal.SIGKILL)

    assert disturbed(reader, kill, 4).lines == expected


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_broker_killed_and_started_again(parts, transport):
    broker, worker, endpoint, submission = parts
    brokers = [broker()]
    wait_until(lambda: run("status", "--broker", endpoint).returncode == 0, what="the broker")
    worker(), worker()
    assert run("submit", *submission).returncode == 0
    token = token_of(endpoint, 0)
    expected = read(endpoint, "epochs=5", f"token={token}").lines
    reader = background(endpoint, "epochs=5", "hold=1", LITTLE, f"token={token}", f"transport={transport}")

    def kill():
        brokers[-1].process.kill()
        brokers[-1].process.wait(timeout=10)
        brokers.append(broker())

    got = disturbed(reader, kill, 2)
    assert got.lines == expected
    assert got.info["attached_times"] >= 3


def test_what_cannot_be_is_said(parts, tmp_path):
    broker, worker, endpoint, submission = parts
    broker()
    wait_until(lambda: run("status", "--broker", endpoint).returncode == 0, what="the broker")
    worker()
    assert run("submit", *submission).returncode == 0
    token = token_of(endpoint, 0)
    fields = token.split(":")

    def error(*more, job="pets"):
        done = read(endpoint, *more, check=False, job=job).done
        assert done.returncode == 1
        return done.stderr

    assert "nothing" in error(job="nothing")
    assert "rank 2 in a world of 2" in error("rank=2", "world=2")
    assert "pipeline" in error("token=" + ":".join([*fields[:4], "0" * 32, fields[5]]))
    assert "dataset" in error("token=" + ":".join([*fields[:5], "0" * 32]))
    assert "seed" in error("token=" + ":".join([*fields[:3], "8", *fields[4:]]))
    assert "is not a token" in error("token=shardmill")
    seen = tmp_path / "seen"
    with open(seen, "w") as file:
        reader = background(endpoint, "pause_ms=20", "epochs=10000", f"token={token}", stdout=file)

    def go_on(n):
        wait_until(lambda: len(seen.read_text().splitlines()) >= n, what=f"{n} lines of the reader")
        return len(seen.read_text().splitlines())

    begun = go_on(1)
    with ThreadPoolExecutor() as pool:  # each asks until the first one would count as gone, were it dead
        twice, other_world = pool.submit(error), pool.submit(error, "rank=1", "world=2")
        assert "rank 0" in twice.result()  # a second trainer of the same rank
        assert "world" in other_world.result()
    go_on(go_on(begun) + 8)
    reader.kill()
    reader.communicate()
    steps = Read(seen.read_text().rpartition("\n")[0]).steps  # and nobody has disturbed it
    assert [(e, k) for e, k, *_ in steps] == [divmod(k, PHOTOS // BATCH) for k in range(len(steps))]


def test_the_library_needs_little_and_shows_little():
    needed = subprocess.run(["readelf", "-d", BUILD / "libshardmill.so"], capture_output=True, text=True).stdout
    for heavy in ("vips", "fyaml", "jansson", "crypto", "openblas", "sqlite"):
        assert heavy not in needed
    assert "libshardmill.so.0" in needed
    header = (ROOT / "client/c/shardmill.h").read_text()
    shown = subprocess.run(["nm", "-D", "--defined-only", BUILD / "libshardmill.so"], capture_output=True, text=True).stdout
    names = {line.split()[-1] for line in shown.splitlines()}
    names = {n for n in names if not n.startswith(("__", "_init", "_fini"))}
    assert len(names) == 14 and all(n.startswith("sm_") and n + "(" in header for n in names), names
    static = subprocess.run(["nm", "--defined-only", "-g", BUILD / "libshardmill.a"], capture_output=True, text=True).stdout
    assert {line.split()[-1] for line in static.splitlines() if " T " in line} == names


def test_installed_it_builds_with_pkg_config(tmp_path):
    for mode in ("so", "a"):
        root = tmp_path / mode
        for folder, files in (("lib", ["libshardmill.so.0"] if mode == "so" else ["libshardmill.a"]),):
            (root / folder).mkdir(parents=True)
            for f in files:
                (root / folder / f).write_bytes((BUILD / f).read_bytes())
        if mode == "so":
            (root / "lib/libshardmill.so").symlink_to("libshardmill.so.0")
        (root / "include").mkdir()
        (root / "include/shardmill.h").write_text((ROOT / "client/c/shardmill.h").read_text())
        (root / "lib/pkgconfig").mkdir()
        pc = (BUILD / "shardmill.pc").read_text().splitlines()
        pc[0] = f"prefix={root}"
        (root / "lib/pkgconfig/shardmill.pc").write_text("\n".join(pc) + "\n")
        env = {**os.environ, "PKG_CONFIG_PATH": str(root / "lib/pkgconfig")}
        flags = subprocess.run(["pkg-config", "--cflags", "--libs", *(["--static"] if mode == "a" else []), "shardmill"], env=env,
                               capture_output=True, text=True, check=True).stdout.split()
        if "asan" in str(BUILD):
            flags.append("-fsanitize=address,undefined")
        subprocess.run(["gcc", ROOT / "client/c/example.c", "-o", root / "example", *flags, f"-Wl,-rpath,{root}/lib"], check=True)
        done = subprocess.run([root / "example"], capture_output=True, text=True)
        assert done.returncode == 2 and "usage: example" in done.stderr
