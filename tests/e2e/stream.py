"""What the tests of streams share: a served pipeline, readers, and what a rank of a world is due."""
import json
import re
import subprocess

from conftest import SANITIZED, SHARDMILL, good, wait_until

SLOWER = 5 if SANITIZED else 1
PIPELINE = """\
version: 1
name: {name}
seed: {seed}
source: {{format: folder, path: {path}}}
ops:
  - RandomResizedCrop: {{size: {size}}}
  - RandomHorizontalFlip
output: {{batch_size: {batch}, shuffle: true, drop_last: {drop_last}, layout: {layout}, dtype: {dtype}}}
expand: {{copies: 1, encode: tensor, samples_per_shard: 7}}
"""


def write_pipeline(file, path, name="stream", seed=11, size=48, batch=4, drop_last=False, layout="NCHW", dtype="uint8"):
    file.write_text(PIPELINE.format(path=path, name=name, seed=seed, size=size, batch=batch, layout=layout, dtype=dtype,
                                    drop_last=str(drop_last).lower()))
    return file


class Served:
    """`shardmill serve` in the background; endpoint is where it is."""

    def __init__(self, start, file, state, *args, bind="tcp://127.0.0.1:*"):
        self.started = start("serve", file, "--bind", bind, "--state", state, *args,
                             stderr=subprocess.DEVNULL)
        line = self.started.process.stdout.readline()
        found = re.fullmatch(r"serving (\S+) at (\S+)\n", line)
        assert found, line
        self.name, self.endpoint = found.groups()

    def family(self, role=None):
        return self.started.family(role)

    def read(self, *args, **more):
        return good("read", self.name, "--broker", self.endpoint, *args, **more)

    def reader(self, *args, **more):
        """A reader in the background, its lines to be read as they come."""
        return subprocess.Popen([SHARDMILL, "read", self.name, "--broker", self.endpoint, *map(str, args)],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)

    def lines(self, *args):
        return [json.loads(line) for line in self.read("--digest", *args).stdout.splitlines()]

    def together(self, world, *args):
        """Lines of every rank of a world, all reading at the same time."""
        readers = [self.reader("--digest", "--rank", r, "--world-size", world, *args) for r in range(world)]
        found = []
        for reader in readers:
            out, err = reader.communicate(timeout=300)
            assert reader.returncode == 0, err
            found.append([json.loads(line) for line in out.splitlines()])
        return found

    def wait_for_workers(self, n):
        wait_until(lambda: len(json.loads(good("status", "--json", "--broker", self.endpoint).stdout)["workers"]) >= n,
                   30 * SLOWER, f"{n} workers")


class Ledger:
    """What a trainer that only counts wrote: samples (epoch, position, index, flags, digest) up to the last checkpoint,
    and that one's token."""

    def __init__(self, path):
        self.samples, self.token, waiting = [], None, []
        with open(path, encoding="ascii") as file:
            for line in file:
                if not line.endswith("\n"):
                    break
                kind, *words = line.split()
                if kind == "c":
                    self.samples += waiting
                    self.token, waiting = line[2:-1], []
                else:
                    waiting.append((int(words[0]), int(words[1]), int(words[2]), int(words[3]), words[4]))

    def real(self):
        """Without padding."""
        return [s for s in self.samples if not s[3] & 1]


def due(positions, batch, rank, world, first=0):
    """[(position, is padding)] that a rank gets in one epoch that its world entered at position `first`."""
    step = batch * world
    return [(g % positions, g >= positions) for p in range(first, positions, step)
            for g in range(p + rank * batch, p + (rank + 1) * batch)]
