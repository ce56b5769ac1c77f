"""What the tests of the Python package share: programs in a Python of their own, and what an interrupt costs one."""
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

from conftest import ROOT, SHARDMILL

PACKAGE = ROOT / "client" / "python" / "src"
BUILD = pathlib.Path(SHARDMILL).resolve().parent


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
