"""The Python package against a library that the tests control: waits, failures, credit, memory."""
import os
import subprocess
import time

import pytest

from conftest import ROOT, SANITIZED
from loaders import WAITING, assert_quick, python, said

pytestmark = pytest.mark.skipif(SANITIZED, reason="Python itself is not built with the sanitizers")


@pytest.fixture(scope="module")
def fake(tmp_path_factory):
    """Path of the library in fake_shardmill.c."""
    out = tmp_path_factory.mktemp("fake") / "libshardmill.so"
    subprocess.run([os.environ.get("CC", "gcc"), "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
                    "-I", str(ROOT), "-o", str(out), str(ROOT / "tests" / "e2e" / "fake_shardmill.c")], check=True)
    return out


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
