"""The C library, found and described to ctypes: struct by struct and call by call as client/c/shardmill.h has them.

Before it: nothing. After it: _session.py, which is the only caller.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import os
import pathlib
import shutil
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p
from typing import Iterator, Optional

API_VERSION = 2
NEXT_BATCH, NEXT_EPOCH_END, NEXT_JOB_END = 1, 2, 3
UINT8, FLOAT32, FLOAT16, BFLOAT16, FLOAT64 = 0, 1, 2, 3, 4
FLAG_PADDING, FLAG_SUBSTITUTE = 1, 2

_PACKAGE = pathlib.Path(__file__).resolve().parent


class ShardmillError(RuntimeError):
    """What the C library or the broker said: what failed, on what, and a hint. `code` is the kind of failure, in one word that
    stays the same between versions (sm_last_code in shardmill.h); kinds that a program may want to catch are classes."""

    code: str = "usage"


class TimedOutError(ShardmillError, TimeoutError):
    """A wait was longer than its timeout; the text says who waits for whom. Calling again waits again, and nothing is lost."""

    code = "timeout"


class CancelledError(ShardmillError):
    """The job was cancelled, or another thread closed the loader."""

    code = "cancelled"


class DiffersError(ShardmillError):
    """The state is of another pipeline, dataset or seed, or does not fit the ranks that are attached."""

    code = "differs"


class BusyError(ShardmillError):
    """Another trainer has this rank, and lives."""

    code = "busy"


class MissingError(ShardmillError):
    """The broker has no such job."""

    code = "missing"


class ReleasedError(ShardmillError):
    """A batch was used after it was released."""


_CLASSES = {kind.code: kind for kind in (TimedOutError, CancelledError, DiffersError, BusyError, MissingError)}


def failure(text: str, code: str) -> ShardmillError:
    """The exception for a failure of this kind."""
    error = _CLASSES.get(code, ShardmillError)(text)
    error.code = code
    return error


class OpenOptions(ctypes.Structure):
    """struct sm_open_options"""

    _fields_ = [
        ("api_version", c_uint32),
        ("broker", c_char_p),
        ("job", c_char_p),
        ("rank", c_uint32),
        ("world_size", c_uint32),
        ("token", c_char_p),
        ("credit_bytes", c_uint64),
        ("timeout_ms", c_int),
        ("key_dir", c_char_p),
        ("transport", c_char_p),
    ]


class ClassCounts(ctypes.Structure):
    """struct sm_class_count"""

    _fields_ = [("present", c_uint64), ("drawn", c_uint64), ("last_epoch", c_uint64), ("this_epoch", c_uint64)]


class BatchView(ctypes.Structure):
    """struct sm_batch_view"""

    _fields_ = [
        ("epoch", c_uint32),
        ("step", c_uint64),
        ("count", c_uint32),
        ("padding", c_uint32),
        ("type", c_int),
        ("ndim", c_int),
        ("shape", c_int64 * 4),
        ("data", c_void_p),
        ("data_bytes", c_size_t),
        ("label", c_void_p),
        ("index", c_void_p),
        ("position", c_void_p),
        ("flags", c_void_p),
        ("digest", c_char * 40),
        ("handle", c_void_p),
        ("weight", c_void_p),
    ]


def _describe(lib: ctypes.CDLL) -> ctypes.CDLL:
    loader = c_void_p
    for name, result, arguments in (
        ("sm_open", c_int, [POINTER(loader), POINTER(OpenOptions)]),
        ("sm_next", c_int, [loader, POINTER(BatchView), c_int]),
        ("sm_release", c_int, [loader, POINTER(BatchView)]),
        ("sm_state", c_int, [loader, c_char_p, c_size_t]),
        ("sm_commit", c_int, [loader, c_char_p, c_int]),
        ("sm_seek", c_int, [loader, c_char_p]),
        ("sm_classes", c_int, [loader, c_char_p, c_size_t, c_int]),
        ("sm_class_counts", c_int, [loader, POINTER(ClassCounts), c_size_t]),
        ("sm_info", c_int, [loader, c_char_p, c_size_t]),
        ("sm_interrupt", None, [loader]),
        ("sm_close", None, [POINTER(loader)]),
        ("sm_last_error", c_char_p, [loader]),
        ("sm_last_code", c_char_p, [loader]),
        ("sm_version", c_char_p, []),
    ):
        call = getattr(lib, name)
        call.restype, call.argtypes = result, arguments
    return lib


def _build_folder() -> Optional[pathlib.Path]:
    """build/ of the checkout that this file lies in."""
    if len(_PACKAGE.parents) > 3 and (_PACKAGE.parents[3] / "client" / "c" / "shardmill.h").is_file():
        return _PACKAGE.parents[3] / "build"
    return None


def _library_places() -> Iterator[str]:
    yield str(_PACKAGE / "_native" / "libshardmill.so")
    if _build_folder() is not None:
        yield str(_build_folder() / "libshardmill.so")


_loaded: Optional[ctypes.CDLL] = None


def library() -> ctypes.CDLL:
    """The C library: SHARDMILL_LIB, the package's own, the checkout's build/, the system's, whichever is there first.

    Raises ImportError when there is none, or when the one that SHARDMILL_LIB names cannot be loaded.
    """
    global _loaded
    if _loaded is None:
        _loaded = _describe(_find())
    return _loaded


def _find() -> ctypes.CDLL:
    named = os.environ.get("SHARDMILL_LIB")
    places = [named] if named else [place for place in _library_places() if os.path.exists(place)]
    if not named:
        system = ctypes.util.find_library("shardmill")
        places += [system] if system else []
    if not places:
        raise ImportError("libshardmill.so is not in the package, the checkout's build/ or the system (hint: `make` in the "
                          "checkout, `pip install CHECKOUT/client/python`, or SHARDMILL_LIB=path)")
    try:
        return ctypes.CDLL(places[0])
    except OSError as error:
        raise ImportError(f"cannot load '{places[0]}': {error} (hint: `make deps` installs the Debian packages that it "
                          "needs)") from None


def program() -> str:
    """Path of the `shardmill` program: SHARDMILL, the package's own, the checkout's build/, the one in PATH."""
    named = os.environ.get("SHARDMILL")
    if named:
        return named
    places = [_PACKAGE / "_native" / "shardmill"]
    if _build_folder() is not None:
        places.append(_build_folder() / "shardmill")
    for place in places:
        if os.access(place, os.X_OK):
            return str(place)
    found = shutil.which("shardmill")
    if found is None:
        raise FileNotFoundError("the program 'shardmill' is not in the package, the checkout's build/ or PATH (hint: `make` "
                                "in the checkout, or SHARDMILL=path)")
    return found


def version() -> str:
    """Version of the C library."""
    return library().sm_version().decode()
