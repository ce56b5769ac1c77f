"""The Python package: against a library that the tests control (waits, failures, credit, memory), and against real servers."""
import ctypes
import gc
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from conftest import OPS, PIPELINE, ROOT, SANITIZED, SHARDMILL, Started, good, processes, wait_until

PACKAGE = ROOT / "client" / "python" / "src"
BUILD = pathlib.Path(SHARDMILL).resolve().parent
pytestmark = pytest.mark.skipif(SANITIZED, reason="Python itself is not built with the sanitizers")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Path of the library in fake_shardmill.c."""
    out = tmp_path_factory.mktemp("fake") / "libshardmill.so"
    subprocess.run([os.environ.get("CC", "gcc"), "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    "-I", str(ROOT), "-o", str(out), str(ROOT / "tests" / "e2e" / "fake_shardmill.c")], check=True)
    return out


def python(code, library=None, timeout=60, **more):
    """Runs a program in a Python of its own: each test gets a fresh library, and may be killed."""
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], env=environment(library), capture_output=True,
                          text=True, timeout=timeout, **more)


def environment(library=None):
    env = dict(os.environ, PYTHONPATH=str(PACKAGE), SHARDMILL=SHARDMILL,
               SHARDMILL_LIB=str(library or BUILD / "libshardmill.so"), PYTHONDONTWRITEBYTECODE="1")
    return env


def said(code, library=None, **more):
    done = python(code, library, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split("\n")[:-1]


# ---- memory ----

def test_batch_is_a_mapping_of_read_only_arrays(fake):
    assert said("""
        import numpy as np, shardmill
        with shardmill.Loader("job", broker="ipc://x") as loader:
            batch = next(iter(loader))
            print(list(batch), len(batch), batch.epoch, batch.step, batch.dtype, batch.digest)
            for key in batch:
                print(key, batch[key].shape, batch[key].dtype, batch[key].flags.writeable)
                try:
                    batch[key].setflags(write=True)
                    print("can be made writable")
                except ValueError:
                    pass
            print(batch["image"].ctypes.data % 64, batch["image"][2, 0, 0, 0], list(batch.position), list(batch.substitute))
    """, fake) == [
        "['image', 'label', 'index', 'padding'] 4 0 0 uint8 00112233",
        "image (4, 3, 8, 8) uint8 False", "label (4,) int64 False", "index (4,) uint64 False", "padding (4,) bool False",
        "can be made writable", "0 2 [0, 1, 2, 3] [False, True, False, False]"]  # padding is made from the flags


def test_next_iteration_releases_and_says_so(fake):
    lines = said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        steps = iter(loader)
        first = next(steps)
        next(steps)
        try:
            first["image"]
        except shardmill.ReleasedError as error:
            print(error)
        print(loader.info()["held"], first)
    """, fake)
    assert "epoch 0, step 0 was released" in lines[0]
    assert lines[1] == "1 <Batch of epoch 0, step 0, released>"


def test_held_array_stays_as_it_was(fake):
    """Three slots: were an array that is held given back, its slot would show another step's pixels."""
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        steps = iter(loader)
        held = next(steps)["image"][1:2, 0]
        for batch in steps:
            pass
        print(held.ravel()[0], loader.info()["held"])
        del held
        print(loader.info()["held"])
    """, fake) == ["1 1", "0"]


def test_array_outlives_the_loader(fake):
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        image = next(iter(loader))["image"]
        loader.close()
        del loader
        print(int(image.sum()) == 192 * (0 + 1 + 2 + 3))
        del image
        print("end")
    """, fake) == ["True", "end"]


def test_holding_all_credit_ends_in_a_sentence(fake):
    assert "shardmill waits for you" in said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x", timeout=0.3)
        try:
            print(len([batch["image"] for batch in loader]))
        except TimeoutError as error:
            print(error)
    """, fake)[0]


def test_release_in_other_threads(fake):
    assert said("""
        import queue, shardmill, threading
        loader = shardmill.Loader("job", broker="ipc://x", timeout=20)
        todo, seen = queue.Queue(), []
        def work():
            while True:
                image = todo.get()
                if image is None:
                    return
                seen.append(int(image[0, 0, 0, 0]))
                del image
        threads = [threading.Thread(target=work) for _ in range(3)]
        [t.start() for t in threads]
        for epoch in range(3):
            for batch in loader:
                todo.put(batch["image"])
        [todo.put(None) for _ in threads]
        [t.join() for t in threads]
        del batch
        print(sorted(seen) == sorted([0, 16, 32, 48, 64] * 3), loader.info()["held"])
    """, fake) == ["True 0"]


@pytest.fixture(scope="module")
def with_torch(fake):
    """Lines of each of these by its name; one process, since importing torch takes longest."""
    lines = said("""
        import shardmill, shardmill.torch, torch

        def dlpack():
            loader = shardmill.Loader("job", broker="ipc://x")
            batch = next(iter(loader))
            image, label = torch.from_dlpack(batch), torch.from_dlpack(batch.dlpack("label"))
            yield image.data_ptr() == batch["image"].ctypes.data, batch.__dlpack_device__(), label.tolist()
            batch.release()
            yield int(image[3, 0, 0, 0]), loader.info()["held"]
            del image
            yield loader.info()["held"],

        def tensors():
            for copy in (False, True):
                loader = shardmill.torch.Loader("job", broker="ipc://x", copy=copy)
                for batch in loader:
                    image = batch["image"]
                    if copy:
                        image.zero_()
                    kept = dict(batch)
                yield (type(batch).__module__, image.dtype, tuple(image.shape), kept["label"].dtype, kept["index"].dtype,
                       kept["padding"].tolist(), int(image[1, 0, 0, 0]))
                del batch, image, kept
                loader.close()

        def bfloat16():
            batch = next(iter(shardmill.Loader("bf16", broker="ipc://x")))
            yield batch.dtype, batch["image"].dtype, hex(batch["image"][0, 0, 0, 0])
            batch = next(iter(shardmill.torch.Loader("bf16", broker="ipc://x")))
            yield batch["image"].dtype, float(batch["image"].float().mean())

        def rows():
            batch = next(iter(shardmill.Loader("rows", broker="ipc://x")))
            yield *batch, batch, batch["features"].dtype, batch["features"].shape, batch["features"][1, 2]
            shared = torch.from_dlpack(batch)
            batch = next(iter(shardmill.torch.Loader("rows", broker="ipc://x")))
            yield *batch, batch["features"].dtype, bool((batch["features"] == shared).all())

        for test in (dlpack, tensors, bfloat16, rows):
            for words in test():
                print(test.__name__, *words)
    """, fake)
    found = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        found.setdefault(name, []).append(rest)
    return found


def test_dlpack_shares_the_memory(with_torch):
    assert with_torch["dlpack"] == ["True (1, 0) [0, 1, 2, 0]", "3 1", "0"]


def test_torch_tensors_share_the_memory_or_are_copies(with_torch):
    assert with_torch["tensors"] == [
        f"shardmill.torch torch.uint8 (4, 3, 8, 8) torch.int64 torch.int64 [False, False, False, True] {n}" for n in (65, 0)]


def test_bfloat16_is_bits_in_numpy_and_numbers_in_torch(with_torch):
    assert with_torch["bfloat16"] == ["bfloat16 uint16 0x3fc0", "torch.bfloat16 1.5"]


def test_rows_are_features(with_torch):
    assert with_torch["rows"] == [
        "features label index padding <Batch of epoch 0, step 0: features float64[4, 5]> float64 (4, 5) 0.875",
        "features label index padding torch.float64 True"]


# ---- epochs and state ----

def test_an_iteration_is_an_epoch_and_the_job_ends(fake):
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        print(len(loader))
        for epoch in range(4):
            print(epoch, [(batch.epoch, batch.step) for batch in loader])
    """, fake) == ["5"] + [f"{e} {[(e, s) for s in range(5)]}" for e in range(3)] + ["3 []"]


def test_state_is_behind_the_yielded_batch(fake):
    assert said("""
        import shardmill
        states, loader = [], shardmill.Loader("job", broker="ipc://x")
        for epoch in range(2):
            for batch in loader:
                states.append((batch.epoch, batch.step, loader.state_dict()))
        for epoch, step, state in states:
            with shardmill.Loader("job", broker="ipc://x") as other:
                other.load_state_dict(state)
                assert other.state_dict() == state
                rest = [(b.epoch, b.step) for b in other]
            expected = [(epoch, s) for s in range(step + 1, 5)] or [(epoch + 1, s) for s in range(5)]
            assert rest == expected, (rest, expected)
        print(len(states))
    """, fake) == ["10"]


def test_set_epoch_resumes_its_own_and_leaves_another(fake):
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        loader.load_state_dict({"token": "fake:1:8:7:aa:bb"})
        loader.set_epoch(1)
        print(loader.epoch, [(b.epoch, b.step) for b in loader])
        for batch in loader:
            break
        loader.set_epoch(0)
        print(loader.state_dict()["token"], [(b.epoch, b.step) for b in loader][0])
        loader.set_epoch(2)
        loader.rewind()
        print([(b.epoch, b.step) for b in loader][0])
    """, fake) == ["1 [(1, 2), (1, 3), (1, 4)]", "fake:0:0:7:aa:bb (0, 0)", "(2, 0)"]


def test_arrays_are_held_while_the_loader_goes_elsewhere(fake):
    """Three slots: were what is held given back, it would show another step's pixels."""
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        state = loader.state_dict()
        held = [next(iter(loader))["image"]]
        loader.rewind()
        held.append(next(iter(loader))["image"])
        loader.set_epoch(2)
        print([(b.epoch, b.step) for b in loader])
        loader.load_state_dict(state)
        print([(b.epoch, b.step) for b in loader][0], [int(image[1, 0, 0, 0]) for image in held], loader.info()["held"])
        del held
        print(loader.info()["held"])
    """, fake) == [f"{[(2, s) for s in range(5)]}", "(0, 0) [1, 1] 2", "0"]


def test_state_of_another_job_is_told_and_the_right_one_still_goes(fake):
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        loader.info()
        loader.load_state_dict({"token": "fake:1:8:7:aa:cc"})
        for _ in range(2):
            try:
                next(iter(loader))
            except shardmill.DiffersError as error:
                print(error.code)
        loader.load_state_dict({"token": "fake:1:8:7:aa:bb"})
        print([(b.epoch, b.step) for b in loader])
    """, fake) == ["differs", "differs", "[(1, 2), (1, 3), (1, 4)]"]


def test_classes_are_names_by_label(fake):
    assert said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        print(len(loader.class_counts()), loader.class_counts()[2])
        print(loader.classes, [loader.classes[k] for k in next(iter(loader))["label"]][:2])
    """, fake) == ["3 {'present': 12, 'drawn': 22, 'last_epoch': 0, 'this_epoch': 0}", "['cat', 'd\"og', 'élan'] ['cat', 'd\"og']"]


def test_importance_weights_undo_what_rebalancing_did(fake):
    said_lines = said("""
        import numpy as np, shardmill
        loader = shardmill.Loader("job", broker="ipc://x", weights=True)
        counts = loader.class_counts()
        present, drawn = ([count[key] for count in counts] for key in ("present", "drawn"))
        want = [p / sum(present) / (d / sum(drawn)) for p, d in zip(present, drawn)]
        assert np.allclose(loader.log_prior_shift(), np.log(want), rtol=1e-14)
        batch = next(iter(loader))
        assert list(batch)[-1] == "weight" and len(batch) == len(list(batch)) == 5
        assert batch["weight"].dtype == np.float32 and not batch["weight"].flags.writeable
        assert np.allclose(batch["weight"], [want[k] for k in batch["label"]], rtol=1e-6)
        assert "weight" not in next(iter(shardmill.Loader("job", broker="ipc://x")))
        import shardmill.torch
        batch = next(iter(shardmill.torch.Loader("job", broker="ipc://x", weights=True)))
        assert np.allclose(batch["weight"].numpy(), [want[k] for k in batch["label"].tolist()], rtol=1e-6)
        print("held")
    """, fake)
    assert said_lines == ["held"]


def test_weights_of_batches_are_views_of_their_memory_and_need_no_option(fake):
    assert said("""
        import numpy as np, shardmill, shardmill.torch, torch
        for options in ({}, {"weights": True}):
            loader = shardmill.Loader("weights", broker="ipc://x", **options)
            assert loader.info()["weights"] == "in_batches"
            for batch in loader:
                w = batch["weight"]
                assert list(batch)[-1] == "weight" and w.dtype == np.float32 and w.shape == (4,) and not w.flags.writeable
                assert not w.flags.owndata and w.ctypes.data % 64 == 0
                want = np.where(batch["padding"], 0, 1 / (batch.position.astype("f4") + 1)).astype("f4")
                assert np.array_equal(w, want)
                assert np.array_equal(np.from_dlpack(batch.dlpack("weight")), want)
            assert want[-1] == 0
            batch = next(iter(shardmill.torch.Loader("weights", broker="ipc://x", **options)))
            assert batch["weight"].dtype == torch.float32
            loss = torch.ones(4, dtype=torch.float32) * batch["weight"]
            assert loss.dtype == torch.float32 and torch.allclose(loss.sum(), torch.tensor(1 + 1/2 + 1/3 + 1/4))
            batch["weight"].zero_()  # a copy
        batch.release()
        try:
            batch["weight"]
        except shardmill.ReleasedError:
            print("released")
    """, fake) == ["released"]


def test_weights_by_class_are_refused_where_each_sample_has_its_own(fake):
    assert said("""
        import shardmill, shardmill.torch
        assert "weight" not in next(iter(shardmill.Loader("column", broker="ipc://x")))
        for kind in (shardmill.Loader, shardmill.torch.Loader):
            for use in (len, iter, lambda loader: loader.classes):
                try:
                    use(kind("column", broker="ipc://x", weights=True))
                except shardmill.ShardmillError as error:
                    print(error.code, "output: {weights: true}" in str(error))
    """, fake) == ["usage True"] * 6


def test_errors_are_caught_by_kind_and_told_by_code(fake):
    assert said("""
        import pickle, shardmill
        def code(job, call=lambda loader: next(iter(loader)), **options):
            try:
                call(shardmill.Loader(job, broker="ipc://x", **options))
            except shardmill.ShardmillError as error:
                copy = pickle.loads(pickle.dumps(error))
                assert type(copy) is type(error) and copy.code == error.code and str(copy) == str(error)
                return type(error).__name__, error.code, isinstance(error, TimeoutError)
        print(code("unknown"), code("broken"), code("slow", timeout=0.1))
        print(code("slow", lambda loader: loader.commit(timeout=0.1)))
        print(code("job", lambda loader: (loader.close(), next(iter(loader)))))
    """, fake) == ["('MissingError', 'missing', False) ('CancelledError', 'cancelled', False) ('TimedOutError', 'timeout', True)",
                   "('TimedOutError', 'timeout', True)", "('CancelledError', 'cancelled', False)"]


def test_left_iteration_goes_on_and_an_old_one_cannot(fake):
    lines = said("""
        import shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        old = iter(loader)
        next(old)
        print([b.step for b in loader])
        try:
            next(old)
        except shardmill.ShardmillError as error:
            print(error)
    """, fake)
    assert lines[0] == "[1, 2, 3, 4]" and "another iteration" in lines[1]


@pytest.mark.parametrize("state", [{}, {"token": 3}, {"token": "nonsense"}, None])
def test_wrong_state_is_refused_at_once(fake, state):
    assert said(f"""
        import shardmill
        try:
            shardmill.Loader("job", broker="ipc://x").load_state_dict({state!r})
        except ValueError as error:
            print("refused")
    """, fake) == ["refused"]


# ---- failures ----

@pytest.mark.parametrize("call, error", [
    ("shardmill.Loader('unknown', broker='ipc://x').info()", "MissingError: no job 'unknown' (hint: shardmill jobs)"),
    ("next(iter(shardmill.Loader('broken', broker='ipc://x')))", "CancelledError: the job was cancelled"),
    ("next(iter(shardmill.Loader('slow', broker='ipc://x', timeout=0.1)))", "TimedOutError: the trainer waits for a worker"),
    ("shardmill.Loader('slow', broker='ipc://x').commit(timeout=0.1)", "TimedOutError: the broker did not confirm"),
    ("shardmill.Loader('slow', broker='ipc://x', open_timeout=0.1).classes", "TimedOutError: the broker did not tell the names"),
    ("shardmill.Loader('job', broker='ipc://x', rank=2, world_size=2)", "ValueError: rank 2 in a world of 2"),
    ("shardmill.Loader('job', broker='ipc://x', workers=2, seed=1)", "TypeError: workers=, seed= is for the embedded server"),
    ("shardmill.Loader('no/such.yaml')", "FileNotFoundError: 'no/such.yaml' is not a pipeline file"),
    ("shardmill.Loader('job', broker='ipc://x', transport='smoke')", "ValueError: transport 'smoke'"),
    ("l = shardmill.Loader('job', broker='ipc://x'); l.close(); l.close(); iter(l)", "CancelledError: this loader is closed"),
])
def test_failures_are_sentences(fake, call, error):
    done = python(f"import shardmill\n{call}", fake)
    assert done.returncode == 1 and error in done.stderr.strip().split("\n")[-1]


def test_library_that_is_missing(tmp_path):
    done = python("import shardmill; shardmill.version()", tmp_path / "none.so")
    assert "ImportError: cannot load" in done.stderr and "hint" in done.stderr


def interrupted(code, library=None):
    """Seconds from Ctrl-C to its exception in a program that prints "waits" and then waits in `code`."""
    process = subprocess.Popen([sys.executable, "-c", "import os, shardmill, time\n" + textwrap.dedent(code)],
                               env=environment(library), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waits\n"
    time.sleep(0.3)  # into the wait; were it not there yet, the answer would only come sooner
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    took = time.monotonic() - start
    process.communicate()
    return took


WAITING = """
    loader = shardmill.Loader({job!r}, broker={broker!r})
    {before}
    print("waits", flush=True)
    try:
        {wait}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
        os._exit(0)
"""


def assert_quick(code, library=None):
    """On a busy machine a try may be slow; what is slow by itself is slow each time."""
    assert any(interrupted(code, library) < 1 for _ in range(5))


@pytest.mark.parametrize("job, wait", [("slow", "next(iter(loader))"), ("unreachable", "loader.info()"),
                                       ("slow", "loader.commit()"), ("slow", "loader.classes")])
def test_interrupt_returns_within_a_second(fake, job, wait):
    assert_quick(WAITING.format(job=job, broker="ipc://x", before="", wait=wait), fake)


def test_interrupts_lose_no_batch(fake):
    """Signals rain on the loop: whatever they hit, what comes next is what the state says comes next."""
    assert said("""
        import shardmill, signal
        class Rain(Exception):
            pass
        def drop(*_):
            raise Rain
        signal.signal(signal.SIGALRM, drop)
        hits = 0
        for shower in range(200):
            loader = shardmill.Loader("job", broker="ipc://x")
            loader.info()
            tries = 0
            while loader.state_dict()["epoch"] == 0:
                expected = loader.state_dict()
                first = None
                try:
                    tries += 1
                    signal.setitimer(signal.ITIMER_REAL, 0.00005 + 0.000002 * shower + 0.000007 * tries)
                    if tries % 2:
                        loader.load_state_dict(expected)  # to where it is: whether that was hit or not
                    for batch in loader:
                        first = first or (batch.epoch, batch.step)
                    signal.setitimer(signal.ITIMER_REAL, 0)
                except Rain:
                    hits += 1
                assert first in (None, (0, expected["position"] // 4)), (first, expected)
            signal.setitimer(signal.ITIMER_REAL, 0)
            batch = None
            loader.close()
        print(hits > 100)
    """, fake) == ["True"]


# ---- processes ----

def test_child_of_a_fork_is_told_and_may_open_its_own(fake):
    lines = said("""
        import os, shardmill
        loader = shardmill.Loader("job", broker="ipc://x")
        steps = iter(loader)
        image = next(steps)["image"]
        if os.fork() == 0:
            for use in (lambda: next(steps), lambda: iter(loader), lambda: loader.commit()):
                try:
                    use()
                except shardmill.ShardmillError as error:
                    print(f"opened by process {os.getppid()}" in str(error))
            loader.close()
            del loader, image, steps
            print(len(list(b.step for b in shardmill.Loader("job", broker="ipc://x"))), flush=True)
            raise SystemExit
        os.wait()
        print([b.step for b in steps], int(image[1, 0, 0, 0]), loader.info()["held"])
    """, fake)
    assert lines == ["True"] * 3 + ["5", "[1, 2, 3, 4] 1 1"]


def test_exit_in_the_middle_is_clean(fake):
    """With a batch, arrays and a thread that waits: no crash, no wait, no message."""
    start = time.monotonic()
    done = python("""
        import shardmill, shardmill.torch, threading
        loaders = [shardmill.Loader("job", broker="ipc://x"), shardmill.torch.Loader("job", broker="ipc://x")]
        batches = [next(iter(loader)) for loader in loaders]
        images = [batch["image"] for batch in batches]
        slow = shardmill.Loader("slow", broker="ipc://x")
        threading.Thread(target=lambda: next(iter(slow)), daemon=True).start()
    """, fake)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and time.monotonic() - start < 20


# ---- real servers ----

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
