"""Keys: who has the right one works, who has not is told so in bounded time, and nobody else is disturbed."""
import ctypes
import os
import pathlib
import re
import shutil
import socket
import stat
import time

import pytest
from conftest import SANITIZED, SHARDMILL, digests, good, run, wait_until

TOLD_S = 20 if SANITIZED else 8  # a wait that a handshake ends, the start of a process included
ENDS = "tcp://127.0.0.1:*"


def secret_of(folder):
    return re.search(r'secret-key = "(.{40})"', (pathlib.Path(folder) / "secret.key").read_text()).group(1)


@pytest.fixture
def keys(tmp_path):
    """Folders of keys: server, and three of peers: known (twice), and unknown, which has the server's key but is not allowed."""
    folder = tmp_path / "keys"
    folder.mkdir()
    good("keygen", folder / "server")
    for name in ("known", "worker", "unknown"):
        good("keygen", folder / name, "--join", folder / "server")
    (folder / "server" / "allowed" / "unknown.key").unlink()
    return folder


def broker(start, tmp_path, *more, bind=ENDS):
    process = start("broker", "--bind", bind, "--state", tmp_path / "state", "--heartbeat-ms", "200", *more)
    line = process.process.stdout.readline()
    assert "broker at " in line, process.process.stderr.read()
    return process, line.split()[2].rstrip(",")


def status(endpoint, folder):
    import json
    return json.loads(good("status", "--broker", endpoint, "--keys", folder, "--json").stdout)


def refused(endpoint, words, *more):
    """A client's wait ends soon, with exit 1 and a sentence that has the words."""
    begin = time.monotonic()
    done = run("status", "--broker", endpoint, *more)
    assert done.returncode == 1, done.stdout
    assert words in done.stderr, done.stderr
    assert time.monotonic() - begin < TOLD_S


def strangers(endpoint, keys):
    """Everybody who shall not get through, each with the sentence that tells why."""
    wrong = keys / "wrong"
    if not wrong.exists():
        shutil.copytree(keys / "known", wrong)
        shutil.copy(keys / "unknown" / "public.key", wrong / "server.key")
    refused(endpoint, "does not allow the key", "--keys", keys / "unknown")
    refused(endpoint, "asks for a key, and this side has none")
    refused(endpoint, "is not the one that this side expects", "--keys", wrong)


def test_keys_are_made_private_never_printed_and_never_written_over(tmp_path):
    folder = tmp_path / "k"
    done = good("keygen", folder)
    secret = secret_of(folder)
    assert secret not in done.stdout + done.stderr
    assert stat.S_IMODE((folder / "secret.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / "public.key").stat().st_mode) == 0o644
    public = (folder / "public.key").read_text()
    assert secret not in public and re.search(r'public-key = "(.{40})"', public).group(1) in done.stdout
    again = run("keygen", folder)
    assert again.returncode == 1 and "is not written over" in again.stderr
    assert secret_of(folder) == secret


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:*", "tcp://[::]:*"])
def test_a_bind_that_other_hosts_reach_is_refused_without_keys(tmp_path, address):
    done = run("broker", "--bind", address, "--state", tmp_path / "state")
    assert done.returncode == 2
    assert "nothing there asks for a key" in done.stderr and "keygen" in done.stderr


def test_a_bind_that_other_hosts_reach_works_with_keys(tmp_path, keys, start):
    _, endpoint = broker(start, tmp_path, "--keys", keys / "server", bind="tcp://0.0.0.0:*")
    port = endpoint.rsplit(":", 1)[1]
    assert status(f"tcp://127.0.0.1:{port}", keys / "known")["workers"] == []


def test_a_secret_that_others_can_read_is_refused_by_every_command(tmp_path, keys):
    (keys / "known" / "secret.key").chmod(0o640)
    for args in (["broker", "--bind", ENDS, "--state", tmp_path / "s"], ["worker", "--broker", "tcp://127.0.0.1:1"],
                 ["status", "--broker", "tcp://127.0.0.1:1"]):
        done = run(*args, "--keys", keys / "known")
        assert done.returncode == 1 and "others can read" in done.stderr and "chmod 600" in done.stderr
        assert secret_of(keys / "known") not in done.stderr


def test_keys_at_a_broker_that_has_none_are_told(tmp_path, keys, start):
    _, endpoint = broker(start, tmp_path)
    refused(endpoint, "works without keys", "--keys", keys / "known")
    assert run("status", "--broker", endpoint).returncode == 0


def test_the_environment_gives_keys_and_ipc_needs_none(tmp_path, keys, start):
    _, endpoint = broker(start, tmp_path, "--keys", keys / "server")
    assert run("status", "--broker", endpoint, env={"SHARDMILL_KEYS": str(keys / "known")}).returncode == 0
    local = f"ipc://{tmp_path}/socket"
    start("broker", "--bind", local, "--state", tmp_path / "other", "--keys", keys / "server")
    wait_until(lambda: run("status", "--broker", local).returncode == 0, what="the broker's start")


def test_a_worker_says_why_it_waits_and_works_when_its_key_is_put_in(tmp_path, keys, start):
    _, endpoint = broker(start, tmp_path, "--keys", keys / "server")
    worker = start("worker", "--broker", endpoint, "--keys", keys / "unknown")
    assert "does not allow the key" in worker.process.stderr.readline()
    assert status(endpoint, keys / "known")["workers"] == []
    shutil.copy(keys / "unknown" / "public.key", keys / "server" / "allowed" / "now-known.key")
    wait_until(lambda: status(endpoint, keys / "known")["workers"], what="the worker's registration")


def test_a_job_over_tcp_with_keys_is_not_disturbed_by_strangers(photos, pipeline, tmp_path, keys, start):
    file = pipeline(photos, copies=8)
    good("expand", file, "-o", tmp_path / "plain", "--workers", "1")
    server, endpoint = broker(start, tmp_path, "--keys", keys / "server")
    worker = start("worker", "--broker", endpoint, "--keys", keys / "worker")
    wait_until(lambda: status(endpoint, keys / "known")["workers"], what="the worker's registration")
    job = start("expand", file, "-o", tmp_path / "curve", "--broker", endpoint, "--keys", keys / "known")
    strangers(endpoint, keys)
    assert job.process.wait(timeout=300) == 0
    assert digests(tmp_path / "curve") == digests(tmp_path / "plain")
    seen = status(endpoint, keys / "known")
    assert seen["refused"] >= 3 and seen["dropped"] == 0
    assert [w["silent_ms"] < 5000 for w in seen["workers"]] == [True]
    for process, folder in ((server, "server"), (worker, "worker")):
        for pid in process.family():
            said = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() + pathlib.Path(f"/proc/{pid}/environ").read_bytes()
            assert secret_of(keys / folder).encode() not in said


def test_half_open_connections_and_garbage_stop_nobody(tmp_path, keys, start):
    _, endpoint = broker(start, tmp_path, "--keys", keys / "server")
    start("worker", "--broker", endpoint, "--keys", keys / "worker")
    wait_until(lambda: status(endpoint, keys / "known")["workers"], what="the worker's registration")
    host, port = endpoint[len("tcp://"):].rsplit(":", 1)
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\x00" + bytes(31)
    openings = [b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(500), greeting, greeting + os.urandom(300)]
    sockets = []
    for i in range(200):
        s = socket.create_connection((host, int(port)), timeout=5)
        s.sendall(openings[i % len(openings)])
        sockets.append(s)
    begin = time.monotonic()
    assert len(status(endpoint, keys / "known")["workers"]) == 1  # while all of them are open
    assert time.monotonic() - begin < TOLD_S

    def ended():
        for s in list(sockets):
            s.setblocking(False)
            try:
                while s.recv(4096):
                    pass
                sockets.remove(s)
            except BlockingIOError:
                pass
            except ConnectionError:
                sockets.remove(s)
        return not sockets

    wait_until(ended, seconds=30, what="the end of connections that never said who they are")
    seen = status(endpoint, keys / "known")
    assert seen["refused"] >= 80 and seen["dropped"] == 0  # the silent ones; libzmq tells nobody of what is no ZeroMQ
    assert [w["silent_ms"] < 5000 for w in seen["workers"]] == [True]


class Options(ctypes.Structure):
    _fields_ = [("api_version", ctypes.c_uint32), ("broker", ctypes.c_char_p), ("job", ctypes.c_char_p),
                ("rank", ctypes.c_uint32), ("world_size", ctypes.c_uint32), ("token", ctypes.c_char_p),
                ("credit_bytes", ctypes.c_uint64), ("timeout_ms", ctypes.c_int), ("key_dir", ctypes.c_char_p),
                ("transport", ctypes.c_char_p)]


class View(ctypes.Structure):
    _fields_ = [("epoch", ctypes.c_uint32), ("step", ctypes.c_uint64), ("count", ctypes.c_uint32),
                ("padding", ctypes.c_uint32), ("type", ctypes.c_int), ("ndim", ctypes.c_int),
                ("shape", ctypes.c_int64 * 4), ("data", ctypes.c_void_p), ("data_bytes", ctypes.c_size_t),
                ("arrays", ctypes.c_void_p * 4), ("digest", ctypes.c_char * 40), ("handle", ctypes.c_void_p)]


def epoch(endpoint, folder, transport, wait_ms=20000):
    """The digests of an epoch's batches as a trainer gets them, or the sentence that tells why it gets none."""
    library = ctypes.CDLL(str(pathlib.Path(SHARDMILL).parent / "libshardmill.so"))
    library.sm_last_error.restype = ctypes.c_char_p
    options = Options(api_version=1, broker=endpoint.encode(), job=b"test", world_size=1, timeout_ms=wait_ms,
                      key_dir=str(folder).encode() if folder else None, transport=transport)
    loader, view, found = ctypes.c_void_p(), View(), []
    if library.sm_open(ctypes.byref(loader), ctypes.byref(options)) != 0:
        return library.sm_last_error(None).decode()
    try:
        while (said := library.sm_next(loader, ctypes.byref(view), wait_ms)) == 1:
            found.append(view.digest)
            library.sm_release(loader, ctypes.byref(view))
        return found if said >= 0 else library.sm_last_error(loader).decode()
    finally:
        library.sm_close(ctypes.byref(loader))


@pytest.mark.skipif(SANITIZED, reason="a sanitized library does not load into this Python")
def test_a_trainer_with_keys_gets_the_same_batches_and_strangers_get_a_sentence(photos, pipeline, tmp_path, keys, start):
    file = pipeline(photos)
    with open(file, "a", encoding="utf-8") as text:
        text.write("output: {batch_size: 4}\n")
    serve = start("serve", file, "--bind", "tcp://127.0.0.1:*", "--workers", "1", "--state", tmp_path / "served",
                  "--keys", keys / "server")
    endpoint = serve.process.stdout.readline().split()[-1]
    plain = start("serve", file, "--bind", "tcp://127.0.0.1:*", "--workers", "1", "--state", tmp_path / "plain")
    wanted = epoch(plain.process.stdout.readline().split()[-1], None, b"shm")
    assert len(wanted) == 6
    assert epoch(endpoint, keys / "known", b"tcp") == wanted
    begin = time.monotonic()
    assert "does not allow the key" in epoch(endpoint, keys / "unknown", b"tcp")
    assert "asks for a key" in epoch(endpoint, None, b"tcp")
    assert time.monotonic() - begin < TOLD_S
    assert epoch(endpoint, keys / "worker", b"tcp") == wanted  # and nothing was disturbed


@pytest.mark.skipif(SANITIZED, reason="a sanitized library does not load into this Python")
def test_a_worker_gives_no_batch_to_a_trainer_whom_it_does_not_know(photos, pipeline, tmp_path, keys, start):
    file = pipeline(photos)
    _, endpoint = broker(start, tmp_path, "--keys", keys / "server")
    worker = start("worker", "--broker", endpoint, "--keys", keys / "worker")
    good("submit", file, "--broker", endpoint, "--keys", keys / "known", "--state", tmp_path / "submitted")
    sentence = epoch(endpoint, keys / "known", b"tcp", wait_ms=4000)
    assert "the trainer waits for the worker at" in sentence and "does not allow the key" in sentence
    assert "refused a connection" in worker.process.stderr.readline()
    shutil.copy(keys / "known" / "public.key", keys / "worker" / "allowed" / "known.key")
    wait_until(lambda: isinstance(epoch(endpoint, keys / "known", b"tcp", wait_ms=4000), list), seconds=40,
               what="the first epoch of a trainer that the worker knows now")
