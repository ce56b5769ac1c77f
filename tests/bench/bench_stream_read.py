#!/usr/bin/python3
"""What streaming costs: `shardmill read` of a served job, beside the same number of processes that make the same batches (the
same leases, cages, batch memory, digests) with no broker, no messages and no trainer. Both on the same two cores, by turns in
one run; each batch must have the same digest in both. Prints samples/s, the processor time of a sample and the ratios.

usage: bench_stream_read.py [--rounds N] [--steps N]      (BUILD, SHARDMILL_PHOTOS as in the tests)
"""
import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
PHOTOS = pathlib.Path(os.environ.get("SHARDMILL_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
WORKERS, BATCH, SIDE, WARM_UP, WANTED = 2, 64, 224, 8, 0.95
PIPELINE = f"""\
version: 1
name: bench
seed: 1
source: {{format: folder, path: {PHOTOS}}}
ops:
  - RandomResizedCrop: {{size: {SIDE}}}
  - RandomHorizontalFlip
output: {{batch_size: {BATCH}, shuffle: true, drop_last: true}}
"""


def cpu_seconds(root):
    """Processor time of a process, and of all that descend from it, those that have ended included."""
    children, ticks = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split() if entry.name.isdigit() else None
        except OSError:
            continue
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    family = [root]
    for pid in family:
        family += children.get(pid, [])
    return sum(ticks.get(pid, 0) for pid in family) / os.sysconf("SC_CLK_TCK")


class Rate:
    """Reads a line a batch; the clock runs from the WARM_UP-th on."""

    def __init__(self, lines, steps, roots):
        self.digests = []
        for n in range(WARM_UP + steps):
            if n == WARM_UP:
                begin, cpu = time.monotonic(), sum(map(cpu_seconds, roots))
            self.digests.append(lines())
        self.seconds = time.monotonic() - begin
        self.cpu = sum(map(cpu_seconds, roots)) - cpu
        self.per_second = steps * BATCH / self.seconds
        self.cpu_ms = self.cpu * 1000 / steps / BATCH


def loop(cores, pipeline, work, steps):
    process = subprocess.Popen(["taskset", "-c", cores, BUILD / "tools" / "batch_loop", pipeline, work / "index", str(SIDE),
                                str(WORKERS)], stdout=subprocess.PIPE, text=True)
    try:
        return Rate(lambda: tuple(process.stdout.readline().split()), steps, [process.pid])
    finally:
        process.kill()
        process.communicate()


def read(cores, pipeline, state, steps):
    server = subprocess.Popen(["taskset", "-c", cores, BUILD / "shardmill", "serve", pipeline, "--bind", "tcp://127.0.0.1:*",
                               "--workers", str(WORKERS), "--state", state, "--quiet"], stdout=subprocess.PIPE, text=True)
    reader = None
    try:
        _, job, _, endpoint = server.stdout.readline().split()
        reader = subprocess.Popen(["taskset", "-c", cores, BUILD / "shardmill", "read", job, "--broker", endpoint, "--digest",
                                   "--quiet", "--epochs", "0", "--steps", str(WARM_UP + steps + 1)], stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, text=True)

        def line():
            found = json.loads(reader.stdout.readline())
            return str(found["epoch"]), str(found["step"]), found["digest"]

        return Rate(line, steps, [server.pid, reader.pid])
    finally:
        for process in (reader, server):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.communicate()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    if not PHOTOS.is_dir():
        raise SystemExit(f"no photos in {PHOTOS} (hint: SHARDMILL_PHOTOS=a folder of JPEG files of about 110 KB)")
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
    rounds = []
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as folder:
        work = pathlib.Path(folder)
        pipeline = work / "bench.yaml"
        pipeline.write_text(PIPELINE)
        for n in range(args.rounds):
            alone, streamed = loop(cores, pipeline, work, args.steps), read(cores, pipeline, work / f"state-{n}", args.steps)
            same = set(alone.digests) & set(streamed.digests)
            assert len(same) >= WARM_UP + args.steps - WORKERS, "the two made different batches"
            rounds.append((alone, streamed))
    for i, name in enumerate((f"{WORKERS} processes, nobody reads", f"read, {WORKERS} workers")):
        rates = [pair[i].per_second for pair in rounds]
        print(f"{name:<28} {statistics.median(rates):8.1f} samples/s   ({', '.join(f'{r:.0f}' for r in rates)})   "
              f"{statistics.median(pair[i].cpu_ms for pair in rounds):.3f} ms of processor time a sample")
    ratio = statistics.median(streamed.per_second / alone.per_second for alone, streamed in rounds)
    cpu = statistics.median(streamed.cpu_ms / alone.cpu_ms for alone, streamed in rounds)
    print(f"{'read / alone':<28} {ratio:8.3f}   wanted: {WANTED} or more")
    print(f"{'processor time, read / alone':<28} {cpu:8.3f}")
    return 0 if ratio >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
