"""The Python package against real servers: epochs, ranks, keys, kills, wheels."""
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from conftest import OPS, PIPELINE, ROOT, SANITIZED, Started, good, processes, wait_until
from loaders import BUILD, WAITING, assert_quick, environment, python, said

pytestmark = pytest.mark.skipif(SANITIZED, reason="Python itself is not built with the sanitizers")
TRAIN = ROOT / "client" / "python" / "examples" / "train.py"
OUTPUT = "output: {batch_size: 4, shuffle: true}\n"


@pytest.fixture
def stream(pipeline, photos):
    """A pipeline of 24 pictures in batches of 4."""
    file = pipeline(photos)
    file.write_text(file.read_text() + OUTPUT)
    return file


def serving(start, *args):
    """A `shardmill serve` of ours: (process, job, endpoint)."""
    server = start("serve", *args)
    words = server.process.stdout.readline().split()
    assert words[:1] == ["serving"], server.process.communicate()
    return server, words[1], words[3]


@pytest.fixture(scope="module")
def server(tmp_path_factory, photos):
    """One `serve` for the tests that say where they begin: job, endpoint, and the state of the start."""
    folder = tmp_path_factory.mktemp("server")
    file = folder / "p.yaml"
    file.write_text(PIPELINE.format(path=photos, ops=OPS, copies=1, shard=10, expand="", source="") + OUTPUT)
    process, job, endpoint = serving(Started, file, "--bind", "tcp://127.0.0.1:*", "--workers", 2, "--state", folder / "state")
    line, = said(f"""
        import json, shardmill
        with shardmill.Loader({job!r}, broker={endpoint!r}) as loader:
            print(json.dumps(loader.state_dict()))
    """)
    yield job, endpoint, json.loads(line)
    process.end()


@pytest.fixture
def parts(stream, start):
    """Starts a broker and a worker with options: (job, endpoint, a function that starts a worker)."""

    def begin(broker=(), client=(), submit=True):
        server = start("broker", "--bind", "tcp://127.0.0.1:*", "--state", stream.parent / "state", "--heartbeat-ms", 300,
                       *broker, stderr=subprocess.DEVNULL)
        endpoint = server.process.stdout.readline().split()[2].rstrip(",")
        good("submit", stream, "--broker", endpoint, "--state", stream.parent / "state", *client)
        return "test", endpoint, lambda *more: start("worker", "--broker", endpoint, *more, stderr=subprocess.DEVNULL)

    return begin


DIGESTS = """
    import json, sys, shardmill
    loader = shardmill.Loader({job!r}, timeout=30, {options})
    if {state!r}:
        loader.load_state_dict({state!r})
    for epoch in range(2):
        for batch in loader:
            print(json.dumps([batch.epoch, batch.step, batch["index"][~batch["padding"]].tolist(), batch.digest]))
"""


def steps_of(job, state=None, **options):
    lines = said(DIGESTS.format(job=str(job), state=state, options=", ".join(f"{k}={v!r}" for k, v in options.items())))
    return [json.loads(line) for line in lines]


def test_embedded_epochs_are_whole_and_equal_for_any_number_of_workers(stream):
    one, two = steps_of(stream, workers=1), steps_of(stream, workers=2)
    assert one == two and [(e, s) for e, s, _, _ in one] == [(e, s) for e in range(2) for s in range(6)]
    epochs = [[i for e, _, index, _ in one if e == epoch for i in index] for epoch in range(2)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24)) and epochs[0] != epochs[1]
    assert steps_of(stream, workers=1, seed=8) != one


def test_ranks_of_a_server_share_the_order_of_one(server):
    """Two ranks, each with half of every step: interleaved they are what one rank gets."""
    job, endpoint, state = server
    alone = steps_of(job, state, broker=endpoint)
    ranks = [steps_of(job, state, broker=endpoint, rank=rank, world_size=2) for rank in (0, 1)]
    for epoch in range(2):
        order = [index for e, _, index, _ in alone if e == epoch]
        mine = [[index for e, _, index, _ in steps if e == epoch] for steps in ranks]
        assert [index for pair in zip(*mine) for index in pair] == order


def test_rank_that_is_taken_is_refused(parts):
    job, endpoint, _ = parts()
    lines = said(f"""
        import shardmill
        loaders = [shardmill.Loader({job!r}, broker={endpoint!r}) for _ in range(2)]
        loaders[0].info()
        try:
            loaders[1].info()
        except shardmill.BusyError as error:
            print(error)
        loaders[0].close()
        print(len(loaders[1]))
    """)
    assert "rank 0" in lines[0] and "attached" in lines[0] and lines[1] == "6"


def test_memory_and_tcp_bring_the_same(server):
    job, endpoint, state = server
    ways = [steps_of(job, state, broker=endpoint, transport=way) for way in ("shm", "tcp")]
    assert ways[0] == ways[1] and len(ways[0]) == 12
    assert said(f"""
        import shardmill
        with shardmill.Loader({job!r}, broker={endpoint!r}, transport="tcp") as loader:
            loader.rewind()
            held = next(iter(loader))["image"]
            print(loader.info()["transport"], held.ctypes.data % 64)
    """) == ["tcp 0"]


def test_keys_let_in_and_their_lack_is_told(parts, tmp_path, stream):
    keys = tmp_path / "keys"
    keys.mkdir()
    good("keygen", keys / "server")
    for name in ("known", "unknown"):
        good("keygen", keys / name, "--join", keys / "server")
    (keys / "server" / "allowed" / "unknown.key").unlink()
    job, endpoint, worker = parts(("--keys", keys / "server"), ("--keys", keys / "known"))
    worker("--keys", keys / "known")
    for way in ("shm", "tcp"):  # the worker's own socket asks for keys too
        assert len(steps_of(job, broker=endpoint, key_dir=str(keys / "known"), transport=way)) == 12
    for key_dir, words in ((None, "asks for a key"), (keys / "unknown", "does not allow the key"), (keys / "none", "no key in")):
        line, = said(f"""
            import shardmill
            try:
                shardmill.Loader({job!r}, broker={endpoint!r}, key_dir={key_dir and str(key_dir)!r}).info()
            except shardmill.ShardmillError as error:
                print(error.code, str(error).replace("\\n", " "))
        """)
        assert words in line and line.split()[0] == "key", line


def test_classes_are_those_of_the_dataset(server):
    job, endpoint, _ = server
    assert said(f"""
        import shardmill
        with shardmill.Loader({job!r}, broker={endpoint!r}) as loader:
            loader.rewind()
            epoch = sum(1 for _ in loader)
            print(loader.classes, [count["present"] for count in loader.class_counts()],
                  [count["last_epoch"] for count in loader.class_counts()])
    """) == ["['birch', 'cedar', 'oak'] [16, 6, 2] [16, 6, 2]"]


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_going_elsewhere_keeps_what_is_held(server, transport):
    """Every array that was ever yielded stays what it was, over all kinds of moves; what comes next is what is due there."""
    job, endpoint, state = server
    assert said(f"""
        import numpy as np, shardmill
        loader = shardmill.Loader({job!r}, broker={endpoint!r}, transport={transport!r}, timeout=30)
        state, held, seen = {state!r}, [], {{}}
        def take(epoch, step, n):
            for k, batch in zip(range(n), loader):
                assert (batch.epoch, batch.step) == (epoch, step + k), (batch, epoch, step + k)
                assert seen.setdefault((batch.epoch, batch.step), batch.digest) == batch.digest
                held.append((batch["image"], batch["image"].copy()))
        loader.load_state_dict(state)
        take(0, 0, 2)
        middle = loader.state_dict()
        loader.rewind()                  # to where this session began
        take(0, 0, 3)
        loader.set_epoch(3)
        take(3, 0, 2)
        loader.load_state_dict(middle)
        take(0, 2, 1)
        loader.set_epoch(1)
        take(1, 0, 6)
        loader.rewind()
        loader.rewind()
        print(loader.epoch, loader.info()["held"], all(np.array_equal(a, b) for a, b in held))
        del held
        print(loader.info()["held"])
        loader.set_epoch(0)
        print([b.step for b in loader])
    """) == ["2 14 True", "0", "[0, 1, 2, 3, 4, 5]"]


def test_ranks_go_elsewhere_one_after_the_other(server):
    """Also when they entered in the middle of an epoch, whose start is then between two of their steps."""
    job, endpoint, state = server
    lines = said(f"""
        import shardmill
        with shardmill.Loader({job!r}, broker={endpoint!r}, timeout=30) as loader:
            loader.load_state_dict({state!r})
            next(iter(loader))
            middle = loader.state_dict()  # half a step of two ranks
        ranks = [shardmill.Loader({job!r}, broker={endpoint!r}, rank=rank, world_size=2, timeout=30) for rank in (0, 1)]
        held = []
        def epoch():
            steps = [[batch["index"].tolist() for batch in loader] for loader in ranks]
            print([index for pair in zip(*steps) for index in pair])
        for loader in ranks:
            loader.load_state_dict(middle)
            len(loader)
        for loader in ranks:
            held.append(next(iter(loader))["image"])
        for loader in ranks:
            loader.set_epoch(2)
        epoch()
        for loader in ranks:
            loader.load_state_dict(middle)
            held.append(next(iter(loader))["image"])
        for loader in ranks:
            loader.rewind()
        epoch()
    """)
    alone = said(f"""
        import shardmill
        with shardmill.Loader({job!r}, broker={endpoint!r}, timeout=30) as loader:
            for epoch in (2, 0):
                loader.set_epoch(epoch)
                loader.rewind()
                print([batch["index"].tolist() for batch in loader])
    """)
    assert lines == alone


DISTRIBUTED = """
    import os, sys, torch.distributed as dist, shardmill.torch
    job, endpoint, state, meet, rank = {job!r}, {endpoint!r}, {state!r}, {meet!r}, int(sys.argv[1])
    dist.init_process_group("gloo", init_method="file://" + meet, rank=rank, world_size=2)
    with shardmill.torch.Loader(job, broker=endpoint, timeout=60) as loader:
        loader.load_state_dict(state)
        if rank == 1:
            dist.barrier()
        len(loader)
        if rank == 0:
            dist.barrier()
        mine = [batch["index"].tolist() for batch in loader]
    both = [None, None]
    dist.all_gather_object(both, mine)
    if rank == 0:
        print([index for pair in zip(*both) for index in pair])
    dist.destroy_process_group()
"""


def test_rank_and_world_size_are_those_of_torch_distributed(server, tmp_path):
    job, endpoint, state = server
    code = textwrap.dedent(DISTRIBUTED.format(job=job, endpoint=endpoint, state=state, meet=str(tmp_path / "meet")))
    ranks = [subprocess.Popen([sys.executable, "-c", code, str(rank)], env={**environment(), "GLOO_SOCKET_IFNAME": "lo"},
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in (0, 1)]
    (out, error), (_, other) = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], error + other
    assert json.loads(out) == [index for epoch, _, index, _ in steps_of(job, state, broker=endpoint) if epoch == 0]


@pytest.mark.parametrize("wait", ["next(iter(loader))", "loader.info()"])
def test_interrupt_returns_within_a_second_from_the_real_library(parts, wait):
    """Nobody makes batches; nobody listens."""
    job, endpoint, _ = parts()
    if wait == "loader.info()":
        endpoint = "tcp://127.0.0.1:9"
    assert_quick(WAITING.format(job=job, broker=endpoint, before="", wait=wait))


def test_state_of_another_dataset_is_refused(stream, pipeline, photos):
    lines = said(f"""
        import shardmill
        with shardmill.Loader({str(stream)!r}, workers=1) as loader:
            state = loader.state_dict()
        with shardmill.Loader({str(stream)!r}, workers=1, seed=99) as loader:
            loader.load_state_dict(state)
            try:
                next(iter(loader))
            except shardmill.ShardmillError as error:
                print(error)
    """)
    assert "seed" in lines[0]


def test_resume_in_the_middle_continues_with_the_same_bytes(server):
    job, endpoint, start = server
    whole = steps_of(job, start, broker=endpoint)
    rest = said(f"""
        import json, shardmill
        for done in (1, 5, 6, 9):
            with shardmill.Loader({job!r}, broker={endpoint!r}, timeout=30) as loader:
                loader.load_state_dict({start!r})
                left, state = done, None
                while left:
                    for batch in loader:
                        left, state = left - 1, loader.state_dict()
                        if not left:
                            break
            state = json.loads(json.dumps(state))
            with shardmill.Loader({job!r}, broker={endpoint!r}, timeout=30) as loader:
                loader.load_state_dict(state)
                while loader.epoch < 2:
                    for batch in loader:
                        print(json.dumps([batch.epoch, batch.step, batch["index"][~batch["padding"]].tolist(), batch.digest]))
    """)
    assert [json.loads(line) for line in rest] == [step for done in (1, 5, 6, 9) for step in whole[done:]]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_killed_trainer_leaves_no_process(stream, end):
    marker = f"SHARDMILL_TEST=python-{os.getpid()}-{time.monotonic_ns()}"
    name, _, value = marker.partition("=")
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(f"""
        import shardmill, time
        loader = shardmill.Loader({str(stream)!r}, workers=2, timeout=30)
        batch = next(iter(loader))
        print("has", flush=True)
        time.sleep(60)
    """)], env={**environment(), name: value}, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout.readline() == "has\n"
        family = processes(marker)
        assert len(family) >= 5, family  # trainer, server, broker, workers, cages
        process.send_signal(end)
        process.wait()
        wait_until(lambda: not processes(marker), 10, "the end of the server and all of its children")
    finally:
        for pid in processes(marker):
            os.kill(pid, signal.SIGKILL)


def test_interrupt_of_the_whole_group_leaves_the_server_to_the_loop(stream):
    """A terminal and a notebook send Ctrl-C to the group: the loop catches it and goes on with the next step."""
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(f"""
        import shardmill, time
        loader = shardmill.Loader({str(stream)!r}, workers=1, timeout=30)
        steps = []
        try:
            for batch in loader:
                steps.append(batch.step)
                print("has", flush=True)
                time.sleep(60)
        except KeyboardInterrupt:
            for batch in loader:
                steps.append(batch.step)
        print(steps, flush=True)
    """)], env=environment(), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "has\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=60)[0] == "[0, 1, 2, 3, 4, 5]\n" and process.returncode == 0


def test_embedded_server_that_cannot_start_says_why(tmp_path):
    (tmp_path / "wrong.yaml").write_text("version: 1\nsource: {path: nowhere}\nops: [RandomCorp]\n")
    done = python(f"import shardmill; len(shardmill.Loader({str(tmp_path / 'wrong.yaml')!r}))")
    assert "ShardmillError" in done.stderr and "RandomCorp" in done.stderr and "RandomCrop" in done.stderr


def test_embedded_server_that_was_killed_is_told_and_another_goes_on(stream):
    lines = said(f"""
        import shardmill
        loader = shardmill.Loader({str(stream)!r}, workers=1, credit_bytes=1, timeout=30)
        steps = iter(loader)
        held = next(steps)["image"]
        before, state = held.copy(), loader.state_dict()
        loader._server.process.kill()
        loader._server.process.wait()
        try:
            seen = [b.step for b in steps]
        except shardmill.ShardmillError as error:
            print(error.code, error)
        loader.load_state_dict(state)
        print([b.step for b in loader], (held == before).all())
    """)
    assert lines[0].startswith("peer the embedded server has ended") and lines[1] == "[1, 2, 3, 4, 5] True"


def test_fork_and_threads_with_real_servers(stream):
    lines = said(f"""
        import os, shardmill, threading
        loader = shardmill.Loader({str(stream)!r}, workers=1, timeout=30)
        steps = iter(loader)
        next(steps)
        if os.fork() == 0:
            with shardmill.Loader({str(stream)!r}, workers=1, timeout=30) as own:
                print([b.step for b in own], flush=True)
            raise SystemExit
        assert os.wait()[1] == 0
        counts = []
        def count():
            with shardmill.Loader({str(stream)!r}, workers=1, timeout=30) as own:
                counts.append(sum(1 for _ in own))
        threads = [threading.Thread(target=count) for _ in range(2)]
        [t.start() for t in threads]
        print([b.step for b in steps])
        [t.join() for t in threads]
        print(counts)
    """)
    assert lines == ["[0, 1, 2, 3, 4, 5]", "[1, 2, 3, 4, 5]", "[6, 6]"]


def test_training_that_is_killed_has_the_losses_of_one_that_is_not(photos, tmp_path):
    def train(out, **more):
        return subprocess.Popen([sys.executable, str(TRAIN), "--out", str(out), "--epochs", "5", "--save-every", "1",
                                 "--source", str(photos), "--workers", "1"], env=environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, **more)

    def lines(out):
        return (out / "losses.jsonl").read_text().splitlines() if (out / "losses.jsonl").exists() else []

    undisturbed = train(tmp_path / "one")
    for kill_at in (3, 6):  # in an epoch, and behind one
        process = train(tmp_path / "two")
        wait_until(lambda: len(lines(tmp_path / "two")) >= kill_at or process.poll() is not None, 60, "a step")
        process.kill()
        process.wait()
    last = train(tmp_path / "two")
    output = last.communicate()[0]
    assert last.returncode == 0 and "goes on at epoch" in output, output
    alone = undisturbed.communicate()[0]
    assert undisturbed.returncode == 0, alone
    assert len(lines(tmp_path / "one")) == 10 and lines(tmp_path / "two") == lines(tmp_path / "one")


def test_wheel_installs_into_a_fresh_environment(stream, tmp_path):
    subprocess.run(["make", "--no-print-directory", "-s", "-C", str(ROOT), "wheel", f"BUILD={BUILD}"], check=True,
                   stdout=subprocess.DEVNULL)
    wheel, = (BUILD / "wheel").glob("*.whl")
    assert "-py3-none-linux" in wheel.name
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", "--system-site-packages", str(tmp_path / "venv")],
                   check=True)
    own = tmp_path / "venv" / "bin" / "python"
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "SHARDMILL", "SHARDMILL_LIB")}
    subprocess.run([own, "-m", "pip", "install", "-q", "--no-index", "--no-deps", str(wheel)], check=True, env=env)
    done = subprocess.run([own, "-c", textwrap.dedent(f"""
        import shardmill, shardmill._library as library
        with shardmill.Loader({str(stream)!r}, workers=1, timeout=30) as loader:
            print(sum(1 for _ in loader), "venv" in library.library()._name, "venv" in library.program())
    """)], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "6 True True\n", done.stderr


def test_trainer_killed_while_its_server_starts_leaves_no_process(stream):
    marker = f"SHARDMILL_TEST=early-{os.getpid()}-{time.monotonic_ns()}"
    name, _, value = marker.partition("=")
    try:
        for after in (0, 0.002, 0.02, 0.05):
            process = subprocess.Popen([sys.executable, "-c", f"import shardmill; len(shardmill.Loader({str(stream)!r}))"],
                                       env={**environment(), name: value}, start_new_session=True)
            wait_until(lambda: len(processes(marker)) > 1 or process.poll() is not None, 20, "the start of the server")
            threading.Event().wait(after)
            process.kill()
            process.wait()
        wait_until(lambda: not processes(marker), 10, "the end of the servers")
    finally:
        for pid in processes(marker):
            os.kill(pid, signal.SIGKILL)
