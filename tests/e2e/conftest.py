"""What the end-to-end tests share: the program, real pictures, folders that are gone afterwards, and a look at processes."""
import csv
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARDMILL = os.environ.get("SHARDMILL", str(ROOT / "build" / "shardmill"))
PHOTOS = pathlib.Path(os.environ.get("SHARDMILL_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
STAMPS = pathlib.Path("/usr/share/tuxpaint/stamps")
# whoever starts tests in the background of a script has SIGINT ignored, and every program that they start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
SANITIZED = "asan" in SHARDMILL or "tsan" in SHARDMILL


def pictures():
    """(class, path) of at least 200 real pictures: photos beside the checkout, else Debian's stamps."""
    if PHOTOS.is_dir():
        found = [(p.parent.name, p) for p in sorted(PHOTOS.glob("*/*")) if p.is_file()]
    else:
        found = [(p.relative_to(STAMPS).parts[0], p) for p in sorted(STAMPS.glob("*/**/*.png"))
                 if p.relative_to(STAMPS).parts[0] in ("animals", "food", "plants")]
    assert len(found) >= 200, "no real pictures: make deps-test installs some"
    return found


def run(*args, timeout=300, env=None, **more):
    """The program with arguments; the result has returncode, stdout, stderr."""
    return subprocess.run([SHARDMILL, *map(str, args)], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, **(env or {})}, **more)


def good(*args, **more):
    done = run(*args, **more)
    assert done.returncode == 0, f"{args}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def digests(folder):
    """Name -> sha256 of everything that a reader sees in an output folder."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(pathlib.Path(folder).iterdir())
            if p.is_file()}


def manifest(folder):
    return json.loads((pathlib.Path(folder) / "manifest.json").read_text())


def csv_rows(folder):
    """Every row of every shard in order, as dictionaries; the header is in the shard's first part alone."""
    found = []
    for shard in manifest(folder)["shards"]:
        with open(pathlib.Path(folder) / shard["name"], newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
        assert len(rows) == shard["samples"]
        found += rows
    return found


def leftovers(folder):
    """What a finished run must not leave."""
    return [p.name for p in pathlib.Path(folder).iterdir()
            if p.name.startswith(".") or ".part" in p.name or p.name.startswith("slice-")]


def samples(folder):
    """Every sample of every shard, in order: {key, extension, bytes, cls, json, shard}."""
    found = []
    for shard in sorted(pathlib.Path(folder).glob("shard-*.tar")):
        with tarfile.open(shard) as tar:
            now = {}
            for member in tar:
                key, _, extension = member.name.partition(".")
                data = tar.extractfile(member).read()
                if now and now["key"] != key:
                    found.append(now)
                    now = {}
                now.setdefault("key", key)
                now["shard"] = shard.name
                if extension == "cls":
                    now["cls"] = int(data)
                elif extension == "json":
                    now["json"] = json.loads(data)
                else:
                    now["extension"], now["bytes"] = extension, data
            if now:
                found.append(now)
    return found


def processes(marker):
    """pid -> command line of every living process that has marker in its environment or command line, and of all that
    descend from one (a cage is started without an environment)."""
    found, parents, commands = {}, {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if fields[0] == "Z":
            continue
        pid = int(entry.name)
        parents[pid], commands[pid] = int(fields[1]), command
        if marker in environment or marker in command:
            found[pid] = command
    grown = True
    while grown:
        young = [p for p, parent in parents.items() if parent in found and p not in found]
        found.update((p, commands[p]) for p in young)
        grown = bool(young)
    return found


def wait_until(condition, seconds=60, what="it"):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen in {seconds} s")


class Started:
    """A command in the background, marked so that its whole family is found; ended when the test ends."""

    def __init__(self, *args, stderr=subprocess.PIPE, cwd=None):
        self.marker = f"SHARDMILL_TEST={os.getpid()}-{time.monotonic_ns()}"
        name, _, value = self.marker.partition("=")
        self.process = subprocess.Popen([SHARDMILL, *map(str, args)], stdin=subprocess.DEVNULL, cwd=cwd,
                                        stdout=subprocess.PIPE, stderr=stderr, text=True,
                                        env={**os.environ, name: value}, start_new_session=True)

    def family(self, role=None):
        return [pid for pid, command in processes(self.marker).items()
                if role is None or command.startswith(f"shardmill {role} ")]

    def end(self):
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        if not self.process.stdout.closed:
            self.process.communicate()


@pytest.fixture
def start():
    running = []

    def begin(*args, **more):
        running.append(Started(*args, **more))
        return running[-1]

    yield begin
    for one in running:
        one.end()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of 24 real pictures in three skewed classes."""
    folder = tmp_path_factory.mktemp("photos")
    found = pictures()
    step = len(found) // 24
    for i, (_, path) in enumerate(found[:24 * step:step]):
        to = folder / ("birch" if i < 16 else "cedar" if i < 22 else "oak")
        to.mkdir(exist_ok=True)
        shutil.copyfile(path, to / f"{i:03d}{path.suffix.lower()}")
    return folder


PIPELINE = """\
version: 1
name: test
seed: 7
source: {{format: folder, path: {path}{source}}}
ops:
{ops}
expand: {{copies: {copies}, samples_per_shard: {shard}{expand}}}
"""
OPS = """\
  - RandomResizedCrop: {size: 64}
  - RandomHorizontalFlip
"""


@pytest.fixture
def pipeline(tmp_path):
    """Writes a pipeline file: pipeline(path=…, ops=…, copies=…, shard=…, expand=…)."""

    def write(path, ops=OPS, copies=2, shard=10, expand="", source="", name="pipeline.yaml"):
        file = tmp_path / name
        file.write_text(PIPELINE.format(path=path, ops=ops, copies=copies, shard=shard,
                                        expand=", " + expand if expand else "", source=", " + source if source else ""))
        return file

    return write


def decode(data):
    from PIL import Image
    image = Image.open(io.BytesIO(data))
    image.load()
    return image
