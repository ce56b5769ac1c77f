#!/usr/bin/python3
"""What CURVE costs: a batch of 38 MB in pieces of 1 MiB over loopback TCP, one connection, with and without, alternating in
one run.

usage: bench_curve.py [--rounds N]      (BUILD as in the other benches)
"""
import argparse
import os
import pathlib
import statistics
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build"))
BYTES = 38 << 20


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as work:
        server, client = f"{work}/server", f"{work}/client"
        subprocess.run([BUILD / "shardmill", "keygen", server, "-q"], check=True)
        subprocess.run([BUILD / "shardmill", "keygen", client, "--join", server, "-q"], check=True)
        done = subprocess.run([BUILD / "tools" / "curve_cost", server, client, str(args.rounds)], check=True,
                              capture_output=True, text=True)
    rounds = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    for name, times in zip(("tcp, plain", "tcp, CURVE"), zip(*rounds)):
        middle = statistics.median(times)
        print(f"{name:<36} {middle * 1000:8.1f} ms for 38 MiB   {BYTES / middle / 1e9:6.2f} GB/s   "
              f"(rounds: {', '.join(f'{t * 1000:.0f}' for t in times)} ms)")
    ratios = sorted(curve / plain for plain, curve in rounds)
    print(f"{'CURVE / plain, time':<36} {statistics.median(ratios):8.2f}   (rounds: {ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
