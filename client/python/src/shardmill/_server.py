"""The embedded default: `shardmill serve` as a child of this process, which ends with it whatever happens.

Before it: _loader.py was given a pipeline file. After it: _session.py opens a stream at the endpoint that it says.
"""
from __future__ import annotations

import atexit
import fcntl
import os
import pathlib
import secrets
import select
import shutil
import subprocess
import tempfile
import time
from typing import IO, Optional, Set, Tuple

from ._library import ShardmillError, TimedOutError, failure, program

_STOP_SECONDS = 5.0
_LAST_WORDS = 4096


class StateFolder:
    """A folder for the index and the journal of a server that nobody asked to keep them.

    It is locked by this process and its server. One that a killed process left is free again, and the next one sweeps it.
    """

    def __init__(self) -> None:
        base = pathlib.Path(tempfile.gettempdir()) / f"shardmill-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
        if found.st_uid != os.getuid() or found.st_mode & 0o77 or not base.is_dir() or base.is_symlink():
            raise ShardmillError(f"'{base}' is not a private folder of this user (hint: state=FOLDER names another)")
        one_at_a_time = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:  # else another process might sweep ours before it is locked
            fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
            for left in base.iterdir():
                self._sweep(left)
            self.path = base / secrets.token_hex(8)
            self.path.mkdir(mode=0o700)
            self.lock = os.open(self.path / "in-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(one_at_a_time)

    @staticmethod
    def _sweep(left: pathlib.Path) -> None:
        """Removes a folder that has a lock file which nobody holds."""
        try:
            lock = os.open(left / "in-use", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return  # just being made, or not one of ours
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
        except OSError:
            pass  # in use
        finally:
            os.close(lock)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


class Server:
    """A running `shardmill serve`. Attributes: job and endpoint, as it said them."""

    def __init__(self, pipeline: str, *, workers: Optional[int], source: Optional[str], seed: Optional[int],
                 epochs: Optional[int], part: Optional[str], state: Optional[str], verbose: bool,
                 timeout: Optional[float]) -> None:
        self._folder = StateFolder() if state is None else None
        endpoint = f"ipc://@shardmill-{secrets.token_hex(16)}"  # abstract: it has no file that could be left
        command = [program(), "serve", os.fspath(pipeline), "--bind", endpoint, "--die-with-parent",
                   "--state", str(self._folder.path if self._folder else state)]
        for name, value in (("--workers", workers), ("--source", source), ("--seed", seed), ("--epochs", epochs),
                            ("--part", part)):
            if value is not None:
                command += [name, str(value)]
        if not verbose:
            command.append("--quiet")
        self._words: Optional[IO[bytes]] = None if verbose else tempfile.TemporaryFile()
        try:
            # in a session of its own: Ctrl-C is for the training loop, not for what feeds it
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._words,
                                            start_new_session=True,
                                            pass_fds=(self._folder.lock,) if self._folder else ())
        except BaseException:
            self._forget()
            raise
        _servers.add(self)
        try:
            self.job, self.endpoint = self._wait_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def _wait_ready(self, timeout: Optional[float]) -> Tuple[str, str]:
        """Reads `serving JOB at ENDPOINT`. Indexing a large dataset may take a while before it comes."""
        start, line = time.monotonic(), b""
        out = self.process.stdout
        while not line.endswith(b"\n"):
            if timeout is not None and time.monotonic() - start > timeout:
                raise TimedOutError(f"'shardmill serve' has not begun to serve within {timeout:g} s")
            if select.select([out], [], [], 0.2)[0]:
                more = os.read(out.fileno(), 4096)
                if not more:
                    self.process.wait()
                    raise failure(self.last_words(), "peer")
                line += more
        words = line.decode(errors="replace").strip()
        if not words.startswith("serving ") or " at " not in words:
            raise ShardmillError(f"'{program()}' is another program: it said '{words[:200]}'")
        job, _, endpoint = words[len("serving "):].rpartition(" at ")
        return job, endpoint

    def ended(self) -> bool:
        return self.process.poll() is not None

    def last_words(self) -> str:
        """Why it ended, in its own words."""
        text = ""
        if self._words is not None:
            size = self._words.seek(0, os.SEEK_END)
            self._words.seek(max(0, size - _LAST_WORDS))
            text = self._words.read().decode(errors="replace").strip()
        return text or f"'shardmill serve' ended with exit status {self.process.returncode}"

    def stop(self) -> None:
        """Ends it and waits until it has gone. In a child of the process that started it: does nothing."""
        if self not in _servers:
            return
        _servers.discard(self)
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._forget()

    def _forget(self) -> None:
        process = getattr(self, "process", None)
        if process is not None and process.stdout is not None:
            process.stdout.close()
        if self._folder is not None:
            self._folder.remove()
            self._folder = None


_servers: Set[Server] = set()


def _stop_all() -> None:
    for server in list(_servers):
        server.stop()


def _forget_all() -> None:
    """In the child of a fork: the servers, and the locks of their folders, are the parent's."""
    for server in _servers:
        if server._folder is not None:
            os.close(server._folder.lock)
    _servers.clear()


atexit.register(_stop_all)
os.register_at_fork(after_in_child=_forget_all)
