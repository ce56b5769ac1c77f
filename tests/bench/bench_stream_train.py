#!/usr/bin/python3
"""The same training loop, fed by shardmill.torch.Loader and by torch's DataLoader: same photos, same chain, same model, same two
cores, two workers each, by turns in one run. Prints samples/s and their ratio, with the model and without.

usage: bench_stream_train.py [--rounds N] [--samples N]      (BUILD, SHARDMILL_PHOTOS as in the tests)
"""
import argparse
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BUILD", ROOT / "build")).resolve()
PHOTOS = pathlib.Path(os.environ.get("SHARDMILL_PHOTOS", ROOT.parent / "shared" / "data" / "photos"))
os.environ.setdefault("SHARDMILL_LIB", str(BUILD / "libshardmill.so"))
os.environ.setdefault("SHARDMILL", str(BUILD / "shardmill"))
sys.path.insert(0, str(ROOT / "client" / "python" / "src"))

import torch  # noqa: E402
import torchvision  # noqa: E402
from torchvision import transforms  # noqa: E402

import shardmill.torch  # noqa: E402

BATCH, WORKERS, WANTED = 32, 2, 1.3
PIPELINE = f"""\
version: 1
name: bench
seed: 1
source: {{format: folder, path: {PHOTOS}}}
ops:
  - RandomResizedCrop: {{size: 224}}
  - RandomHorizontalFlip
  - ColorJitter: {{brightness: 0.2, contrast: 0.2, saturation: 0.2}}
output: {{batch_size: {BATCH}, shuffle: true, drop_last: true}}
"""


class Model:
    """A small CNN, about 2 ms a sample on one core, so that the loaders and not the model are the limit."""

    def __init__(self, classes):
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 7, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, stride=2), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, classes))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01)

    def step(self, images, labels):
        loss = torch.nn.functional.cross_entropy(self.net(images.float().div(255)), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def dataloader():
    """torchvision's chain to uint8, as ours; float32 is made of it in the loop, in both."""
    chain = transforms.Compose([
        transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.2, 0.2, 0.2),
        transforms.PILToTensor()])
    return torch.utils.data.DataLoader(torchvision.datasets.ImageFolder(str(PHOTOS), chain), batch_size=BATCH, shuffle=True,
                                       num_workers=WORKERS, drop_last=True, persistent_workers=True)


def pairs(loader):
    """(images, labels) without end, of either loader."""
    while True:
        for batch in loader:
            yield (batch["image"], batch["label"]) if isinstance(loader, shardmill.Loader) else batch


def rate(stream, steps, model):
    """samples/s over so many steps."""
    start = time.monotonic()
    for _ in range(steps):
        images, labels = next(stream)
        if model is not None:
            model.step(images, labels)
        else:
            images.sum()
    return steps * BATCH / (time.monotonic() - start)


def measure(make, steps, model):
    """Workers start, fill their queues and warm up outside of the clock; what they had made before it starts is not counted."""
    loader = make()
    stream = pairs(loader)
    rate(stream, steps // 2, model)
    found = rate(stream, steps, model)
    if isinstance(loader, shardmill.Loader):
        stream.close()
        loader.close()
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=2000)
    args = parser.parse_args()
    if not PHOTOS.is_dir():
        raise SystemExit(f"no photos in {PHOTOS} (hint: SHARDMILL_PHOTOS=a folder of JPEG files of about 110 KB)")
    cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(1)
    classes = len([p for p in PHOTOS.iterdir() if p.is_dir()])
    enough, steps = True, max(4, args.samples // BATCH)
    with tempfile.TemporaryDirectory(prefix="shardmill-bench-") as work:
        pipeline = pathlib.Path(work) / "bench.yaml"
        pipeline.write_text(PIPELINE)
        # as much ahead as the DataLoader: two batches a worker
        makers = {"ours": lambda: shardmill.torch.Loader(pipeline, workers=WORKERS,
                                                         credit_bytes=2 * WORKERS * BATCH * 3 * 224 * 224 + 65536),
                  "torch": dataloader}
        for text, with_model in (("training loop", True), ("batches alone", False)):
            rates = {name: [] for name in makers}
            for _ in range(args.rounds):
                for name, make in makers.items():
                    rates[name].append(measure(make, steps, Model(classes) if with_model else None))
            for name, words in (("ours", "shardmill.torch.Loader"), ("torch", "torch DataLoader")):
                print(f"{text + ', ' + words:<40} {statistics.median(rates[name]):8.1f} samples/s   "
                      f"(rounds: {', '.join(f'{r:.0f}' for r in rates[name])})", flush=True)
            ratio = statistics.median(rates["ours"]) / statistics.median(rates["torch"])
            wanted = f"   wanted: {WANTED} or more" if with_model else ""
            print(f"{text + ', ratio':<40} {ratio:8.2f}{wanted}", flush=True)
            enough = enough and (ratio >= WANTED or not with_model)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
