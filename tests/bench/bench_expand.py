#!/usr/bin/python3
"""Ratios of whole runs, measured side by side in one run: what the service costs over the bare chain, and what a second
worker brings. Prints the peak memory of every process.

usage: bench_expand.py [--samples N] [--rounds N]      (SHARDMILL, SHARDMILL_PHOTOS as in the tests)
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
SHARDMILL = os.environ.get("SHARDMILL", str(BUILD / "shardmill"))
PHOTOS = pathlib.Path(os.environ.get("SHARDMILL_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
PIPELINE = """\
version: 1
name: bench
seed: 1
source: {{format: folder, path: {path}}}
ops:
  - RandomResizedCrop: {{size: 224}}
  - RandomHorizontalFlip
expand: {{copies: {copies}, encode: jpeg, samples_per_shard: 1000}}
"""


def memory_watch(pid, peaks, stop):
    """Peak RSS in MiB of each role of a process family, by polling VmHWM."""
    while not stop.is_set():
        family = {pid}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                    if int(fields[1]) in family:
                        family.add(int(entry.name))
                except (OSError, IndexError):
                    pass
        for member in family:
            try:
                words = pathlib.Path(f"/proc/{member}/cmdline").read_bytes().split(b"\0")
                status = pathlib.Path(f"/proc/{member}/status").read_text()
                peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
                role = words[1].decode()
                peaks[role] = max(peaks.get(role, 0), peak)
            except (OSError, IndexError):
                pass
        stop.wait(0.1)


def expand(pipeline, out, workers, cores, peaks=None):
    """Samples a second; with peaks the memory is watched, which costs time: such a run is not compared."""
    shutil.rmtree(out, ignore_errors=True)
    start = time.monotonic()
    process = subprocess.Popen(["taskset", "-c", cores, SHARDMILL, "expand", pipeline, "-o", out, "--workers",
                                str(workers), "--quiet"], stdout=subprocess.DEVNULL)
    stop = threading.Event()
    watch = threading.Thread(target=memory_watch, args=(process.pid, peaks, stop))
    if peaks is not None:
        watch.start()
    code = process.wait()
    seconds = time.monotonic() - start
    stop.set()
    if peaks is not None:
        watch.join()
    assert code == 0
    manifest = json.loads((pathlib.Path(out) / "manifest.json").read_text())
    return manifest["planned"] / seconds


def loop(pipeline, folder, copies, cores):
    """The same chain called in a loop in one process: reads, decodes, augments, encodes; writes nothing."""
    files = [str(p) for p in sorted(folder.glob("*/*"))]
    done = subprocess.run(["taskset", "-c", cores, str(BUILD / "tools" / "engine_loop"), pipeline, str(copies), *files],
                          check=True, capture_output=True, text=True)
    return float(done.stdout.split()[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if not PHOTOS.is_dir():
        raise SystemExit(f"no photos in {PHOTOS} (hint: SHARDMILL_PHOTOS=a folder of JPEG files of about 110 KB)")
    work = pathlib.Path(tempfile.mkdtemp(prefix="shardmill-bench-"))
    try:
        copies = max(1, args.samples // len(list(PHOTOS.glob("*/*"))))
        pipeline = work / "bench.yaml"
        pipeline.write_text(PIPELINE.format(path=PHOTOS, copies=copies))
        peaks, rates = {}, {"loop": [], "one": [], "two": []}
        cores = sorted(os.sched_getaffinity(0))
        first, both = str(cores[0]), ",".join(map(str, cores[:2]))
        for _ in range(args.rounds):
            rates["loop"].append(loop(str(pipeline), PHOTOS, copies, first))
            rates["one"].append(expand(str(pipeline), work / "one", 1, first))
            rates["two"].append(expand(str(pipeline), work / "two", 2, both))
        expand(str(pipeline), work / "watched", 2, both, peaks)
        rate = {name: statistics.median(values) for name, values in rates.items()}
        for name, text in (("loop", "the chain in a loop, one process"), ("one", "expand, one worker, one core"),
                           ("two", "expand, two workers, two cores")):
            print(f"{text:<36} {rate[name]:8.1f} samples/s   (rounds: {', '.join(f'{r:.0f}' for r in rates[name])})")
        print(f"{'one worker / loop':<36} {rate['one'] / rate['loop']:8.2f}   wanted: 0.90 or more")
        print(f"{'two workers / one':<36} {rate['two'] / rate['one']:8.2f}   wanted: 1.80 or more")
        for role, peak in sorted(peaks.items()):
            print(f"{'peak memory of ' + role:<36} {peak:8.1f} MiB")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
