#!/usr/bin/python3
"""How fast batches of 38 MB get from a worker to a trainer, beside one plain PUSH/PULL pair with messages of that size:
broker, client library and transport are the real ones, the worker's batches lie ready. Ways alternate in one run; the
ratios are medians over rounds.

usage: bench_stream_transport.py [--rounds N] [--seconds S]      (BUILD as in the other benches)
"""
import argparse
import os
import pathlib
import statistics
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
WAYS = {"pair": "PUSH/PULL, tcp", "pair-ipc": "PUSH/PULL, ipc", "shm": "shardmill, same host", "tcp": "shardmill, tcp"}
WANTED = {"shm": 5.0, "tcp": 1.5}


def rate(way, seconds, read):
    done = subprocess.run([BUILD / "tools" / "stream_transport", way, str(seconds), *(["read"] if read else [])],
                          check=True, capture_output=True, text=True)
    count, took, _ = done.stdout.split()
    return int(count) / float(took) / 1e9


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2)
    args = parser.parse_args()
    missed = []
    for read in (False, True):
        print("every byte is read once by the trainer" if read else "handed over, not read")
        rounds = [{way: rate(way, args.seconds, read) for way in WAYS} for _ in range(args.rounds)]
        for way, name in WAYS.items():
            values = [r[way] for r in rounds]
            print(f"  {name:<22} {statistics.median(values):8.2f} GB/s   ({', '.join(f'{v:.2f}' for v in values)})")
        for way, least in WANTED.items():
            ratio = statistics.median(r[way] / r["pair"] for r in rounds)
            print(f"  {WAYS[way] + ' / pair':<22} {ratio:8.2f}          (wanted: {least:.1f})")
            if ratio < least:
                missed.append((way, read))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
