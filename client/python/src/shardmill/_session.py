"""One open stream: a handle of the C library, used by one thread at a time and by the process that opened it.

Before it: _library.py. After it: _loader.py asks it for views, _batch.py makes arrays of them. A view is given back when the
object that stands for its memory is gone: the session looks for that (a weak reference that is dead) whenever the handle is
free. No destructor has to run for it, so an interrupt (Ctrl-C, an alarm), which may strike between any two steps of a
Python program, can neither lose a batch nor keep its memory for ever: every step here may be done twice.
"""
from __future__ import annotations

import ctypes
import json
import os
import threading
import time
import weakref
from typing import Any, Callable, Dict, List, Optional, Tuple

from . import _library
from ._library import BatchView, OpenOptions, ShardmillError, TimedOutError

SLICE_MS = 200  # the longest that a call stays in C: so long Ctrl-C may have to wait
_TOKEN_BYTES = 512
_INFO_BYTES = 1 << 16


def _bytes(text: Optional[str]) -> Optional[bytes]:
    return None if text is None else os.fsencode(text)


class Session:
    """sm_open … sm_close. Every call raises ShardmillError with the library's own sentence when it fails."""

    def __init__(self, *, broker: str, job: str, rank: int, world_size: int, token: Optional[str], credit_bytes: int,
                 timeout: float, key_dir: Optional[str], transport: Optional[str]) -> None:
        self._lib = _library.library()
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._out: Dict[int, Tuple["weakref.ref[Any]", BatchView]] = {}  # by id of the view
        self._closing = False
        self._pending: Optional[BatchView] = None
        self._handle = ctypes.c_void_p()
        options = OpenOptions(_library.API_VERSION, _bytes(broker), _bytes(job), rank, world_size, _bytes(token),
                              credit_bytes, max(1, int(timeout * 1000)), _bytes(key_dir), _bytes(transport))
        self._open(options)

    def _open(self, options: OpenOptions) -> None:
        """In a thread of its own, so that Ctrl-C need not wait for the connection."""
        result: Dict[str, Any] = {}
        abandoned = threading.Lock()

        def work() -> None:
            handle = ctypes.c_void_p()
            failed = self._lib.sm_open(ctypes.byref(handle), ctypes.byref(options)) < 0
            error = self._failure(None) if failed else None
            with abandoned:
                if result.get("abandoned") and not failed:
                    self._lib.sm_close(ctypes.byref(handle))
                result.update(handle=handle, error=error)

        thread = threading.Thread(target=work, name="shardmill-open", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                thread.join(SLICE_MS / 1000)
        except BaseException:
            with abandoned:
                result["abandoned"] = True
                if "handle" in result and result["error"] is None:
                    self._lib.sm_close(ctypes.byref(result["handle"]))
            raise
        if result["error"] is not None:
            raise result["error"]
        self._handle = result["handle"]

    # ---- calls ----

    def next(self, timeout: Optional[float], idle: Callable[[float, str], None]) -> Tuple[int, Optional[BatchView]]:
        """The next view, waiting in slices; idle(seconds waited, why) is called between them and may raise.

        A view that came while an exception was on its way (Ctrl-C) is kept, and is the next one.
        """
        start = time.monotonic()
        while True:
            self._check()
            with self._lock:
                self._drain()
                if self._pending is not None and self._pending.data:
                    result, error = _library.NEXT_BATCH, None
                else:
                    self._pending = BatchView()
                    left = SLICE_MS if timeout is None else (timeout - (time.monotonic() - start)) * 1000
                    slice_ms = max(1, min(SLICE_MS, int(left)))
                    result = self._lib.sm_next(self._handle, ctypes.byref(self._pending), slice_ms)
                    error = self._failure(self._handle) if result < 0 else None
            self._settle()
            if result == _library.NEXT_BATCH:
                return result, self._pending
            if error is None:
                return result, None
            if not isinstance(error, TimedOutError):
                raise error
            waited = time.monotonic() - start
            if timeout is not None and waited >= timeout:
                raise error
            idle(waited, str(error))

    def take(self, view: BatchView, memory: Any) -> None:
        """The view that next() gave is in somebody's hands: it is given back when `memory` is gone."""
        self._out[id(view)] = (weakref.ref(memory, self._settle), view)
        self._pending = None

    def is_pending(self, view: BatchView) -> bool:
        """Nobody has taken it yet: the next next() gives it again."""
        return self._pending is view

    def state(self) -> str:
        text = ctypes.create_string_buffer(_TOKEN_BYTES)
        self._call(self._lib.sm_state, text, len(text))
        return text.value.decode()

    def seek(self, token: str) -> None:
        """Goes elsewhere. A view that nobody was given is given back; done twice it changes nothing."""
        self._call(self._lib.sm_seek, token.encode())
        with self._lock:
            self._drop_pending()

    def commit(self, token: str, timeout: float) -> None:
        """Until the journal holds the token; a commit that comes twice changes nothing."""
        self._wait(timeout, self._lib.sm_commit, token.encode())

    def classes(self, timeout: float) -> List[str]:
        size, text = 0, None
        while text is None:
            room = ctypes.create_string_buffer(size + 1)
            size = self._wait(timeout, self._lib.sm_classes, room, len(room))
            text = room.value if size < len(room) else None
        return json.loads(text.decode())

    def class_counts(self) -> List[Dict[str, int]]:
        counts = (_library.ClassCounts * self._call(self._lib.sm_class_counts, None, 0))()
        self._call(self._lib.sm_class_counts, counts, len(counts))
        return [{name: getattr(count, name) for name, _ in count._fields_} for count in counts]

    def info(self) -> Dict[str, Any]:
        text = ctypes.create_string_buffer(_INFO_BYTES)
        self._call(self._lib.sm_info, text, len(text))
        return json.loads(text.value.decode())

    def _call(self, function: Callable[..., int], *arguments: Any) -> int:
        """One call with the handle; raises what the library says when it fails."""
        self._check()
        with self._lock:
            result = function(self._handle, *arguments)
            error = self._failure(self._handle) if result < 0 else None
        self._settle()
        if error is not None:
            raise error
        return result

    def _wait(self, timeout: float, function: Callable[..., int], *arguments: Any) -> int:
        """A call whose last argument is how long it may wait, in slices that let Ctrl-C through."""
        end = time.monotonic() + timeout
        while True:
            slice_ms = max(1, min(SLICE_MS, int((end - time.monotonic()) * 1000)))
            try:
                return self._call(function, *arguments, slice_ms)
            except TimedOutError:
                if time.monotonic() >= end:
                    raise

    def close(self) -> None:
        """Detaches. Arrays that somebody still holds stay readable: the last of them closes the handle."""
        if os.getpid() != self._pid:
            return
        self._closing = True
        with self._lock:
            self._drop_pending()
            self._drain()
        self._settle()

    def close_at_exit(self) -> None:
        """The interpreter ends: nobody looks at an array any more, and the broker should know that this rank has gone."""
        if os.getpid() == self._pid and self._lock.acquire(timeout=1.0):
            self._closing = True
            self._lib.sm_close(ctypes.byref(self._handle))
            self._lock.release()

    # ---- giving back ----

    def _settle(self, _: Any = None) -> None:
        """Gives back what is gone, unless a call has the handle, which does it then. In any thread, at any time."""
        if os.getpid() == self._pid and not self._lock.locked():
            with self._lock:
                self._drain()

    def _drain(self) -> None:
        """With the lock. A release that comes twice changes nothing."""
        for key, (memory, view) in list(self._out.items()):
            if memory() is None and view is not self._pending:
                if self._handle.value:
                    self._lib.sm_release(self._handle, ctypes.byref(view))
                self._out.pop(key, None)
        if self._closing and not self._out and self._handle.value:
            self._lib.sm_close(ctypes.byref(self._handle))

    def _drop_pending(self) -> None:
        """With the lock. Nobody was given it."""
        if self._pending is not None and self._pending.data:
            self._lib.sm_release(self._handle, ctypes.byref(self._pending))
        self._pending = None

    def _failure(self, handle: Optional[ctypes.c_void_p]) -> ShardmillError:
        """Of the last call with this handle; None: of sm_open in this thread."""
        return _library.failure(self._lib.sm_last_error(handle).decode(errors="replace"),
                                self._lib.sm_last_code(handle).decode())

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise ShardmillError(f"this loader was opened by process {self._pid}, and this is its child {os.getpid()} (hint: "
                                 "make a Loader after the fork)")
        if self._closing:
            raise _library.CancelledError("this loader is closed")
