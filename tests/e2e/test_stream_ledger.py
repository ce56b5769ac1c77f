"""The ledger: trainers write down each sample that they were given and each checkpoint; workers, broker and trainers are killed
all the while; what remains in the ledgers must be the plan, sample by sample, in order. `make chaos` runs it longer."""
import os
import random
import signal
import time

import pytest
from conftest import SANITIZED, pictures
from stream import SLOWER, Ledger, Served, due, write_pipeline

KILLS = int(os.environ.get("SHARDMILL_STREAM_KILLS", "20" if SANITIZED else "110"))
SAMPLES = int(os.environ.get("SHARDMILL_STREAM_SAMPLES", "2000" if SANITIZED else "20000"))
WORLD, BATCH, POSITIONS = 2, 16, 500


@pytest.fixture(scope="module")
def thumbnails(tmp_path_factory):
    """Real pictures, cut small, so that thousands a second are made."""
    from PIL import Image
    folder = tmp_path_factory.mktemp("thumbnails")
    found = pictures()
    for i in range(POSITIONS):
        with Image.open(found[i % len(found)][1]) as image:
            image = image.convert("RGB")
            left, top = (i * 7) % max(1, image.width - 96), (i * 5) % max(1, image.height - 96)
            to = folder / f"class-{i % 5}"
            to.mkdir(exist_ok=True)
            image.crop((left, top, left + 96, top + 96)).resize((48, 48)).save(to / f"{i:04d}.jpg", quality=90)
    return folder


class Trainer:
    """One rank, started again whenever it has died; its ledger says where it goes on."""

    def __init__(self, served, rank, path):
        self.served, self.rank, self.path, self.process, self.starts = served, rank, path, None, 0

    def tend(self):
        if self.process is not None and self.process.poll() is None:
            return
        if self.process is not None:
            _, said = self.process.communicate()
            assert self.process.returncode == -signal.SIGKILL, f"rank {self.rank}: {self.process.returncode}: {said}"
        self.process = self.served.reader("--rank", self.rank, "--world-size", WORLD, "--epochs", 0, "--ledger", self.path,
                                          "--checkpoint", 3, "--hold", 8, "--quiet", "--timeout", 120)
        self.starts += 1

    def samples(self):
        return self.path.stat().st_size // 60 if self.path.exists() else 0  # about; a line is 50 to 60 bytes

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
        if self.process is not None:
            self.process.communicate(timeout=60)


def killed(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return 1
    except ProcessLookupError:
        return 0


def kill_one(chance, served, trainers):
    """Kills one process of a role that chance chooses; {role: 0 or 1}."""
    role = chance.choices(["worker", "broker", "trainer", "cage"], [5, 2, 4, 1])[0]
    if role == "trainer":
        trainer = chance.choice(trainers)
        return role, killed(trainer.process.pid)
    family = served.family(role)
    return role, killed(chance.choice(family)) if family else 0


def check_history(ledgers, reference):
    """(lost, duplicated, unexpected, out of order) over all ranks, each compared with what it is due."""
    lost = duplicated = unexpected = disordered = 0
    for rank, ledger in enumerate(ledgers):
        epoch_due = due(POSITIONS, BATCH, rank, WORLD)
        got = [(epoch, position, bool(flags & 1)) for epoch, position, _, flags, _ in ledger.samples]
        want = [(i // len(epoch_due), *epoch_due[i % len(epoch_due)]) for i in range(len(got))]
        lost += len(set(want) - set(got))
        unexpected += len(set(got) - set(want))
        duplicated += len(got) - len(set(got))
        disordered += got != want
        for epoch, position, index, _, digest in ledger.samples:
            unexpected += reference.get((epoch, position), (index, digest)) != (index, digest)
    return lost, duplicated, unexpected, disordered


def test_nothing_is_lost_or_doubled_whoever_is_killed(thumbnails, tmp_path, start):
    file = write_pipeline(tmp_path / "ledger.yaml", thumbnails, size=32, batch=BATCH)
    served = Served(start, file, tmp_path / "state", "--workers", 2)
    chance = random.Random(int(os.environ.get("SHARDMILL_SEED", "5")))
    trainers = [Trainer(served, r, tmp_path / f"rank-{r}") for r in range(WORLD)]
    kills = {"worker": 0, "broker": 0, "trainer": 0, "cage": 0}
    began = time.monotonic()
    try:
        while sum(kills.values()) < KILLS or sum(t.samples() for t in trainers) < SAMPLES * 1.1:
            for trainer in trainers:
                trainer.tend()
            time.sleep(chance.expovariate(1 / 0.35))
            assert served.started.process.poll() is None, "serve has ended"
            assert time.monotonic() - began < (300 + 3 * KILLS) * SLOWER, f"no progress: {kills}"
            if sum(kills.values()) < KILLS:
                role, n = kill_one(chance, served, trainers)
                kills[role] += n
    finally:
        for trainer in trainers:
            trainer.end()
    ledgers = [Ledger(t.path) for t in trainers]
    total = sum(len(l.samples) for l in ledgers)
    epochs = 1 + max(l.samples[-1][0] for l in ledgers)
    # what an undisturbed trainer, alone, is given in the same epochs
    calm = tmp_path / "calm"
    other = Served(start, file, tmp_path / "calm-state", "--workers", 2)
    other.read("--epochs", epochs, "--ledger", calm, "--quiet", timeout=600)
    reference = {(epoch, position): (index, digest) for epoch, position, index, _, digest in Ledger(calm).real()}
    assert len(reference) == epochs * POSITIONS
    lost, duplicated, unexpected, disordered = check_history(ledgers, reference)
    print(f"{total} samples, {kills}, {[t.starts for t in trainers]} starts, {time.monotonic() - began:.0f} s: "
          f"lost {lost}, duplicated {duplicated}, unexpected {unexpected}")
    assert (lost, duplicated, unexpected, disordered) == (0, 0, 0, 0)
    assert total >= SAMPLES and sum(kills.values()) >= KILLS and all(kills.values()), kills
