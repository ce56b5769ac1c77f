#!/usr/bin/python3
"""Trains a small CNN on pictures of animals. Kill it at any moment (kill -9), start it again with the same arguments, and it
goes on from its checkpoint: the losses are those of a run that nobody disturbed.

    examples/train.py --out /tmp/animals --epochs 4
    examples/train.py --out /tmp/animals --epochs 4 --broker tcp://127.0.0.1:5570 --job animals     # from a running broker

In OUT: checkpoint.pt (model, optimizer, position of the loader) and losses.jsonl, a line for each step.
"""
import argparse
import json
import os
import pathlib

import torch
import torch.nn.functional as functional

import shardmill.torch

HERE = pathlib.Path(__file__).resolve().parent
CLASSES = 16  # at least as many as the dataset has


def cnn():
    """(N,3,64,64) float in [0,1] -> (N,CLASSES) logits"""
    layers, channels = [], 3
    for out in (16, 32, 64):
        layers += [torch.nn.Conv2d(channels, out, 3, stride=2, padding=1), torch.nn.ReLU()]
        channels = out
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(channels, CLASSES))


def save(path, state):
    """Whole or not at all, also when the machine stops in the middle of it."""
    new = path.with_suffix(".new")
    with open(new, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def cut_back(path, steps):
    """The losses behind the checkpoint are computed again: their lines go."""
    lines = path.read_text().splitlines(keepends=True)[:steps] if path.exists() else []
    path.write_text("".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--save-every", type=int, default=5, metavar="STEPS")
    parser.add_argument("--pipeline", default=HERE / "animals.yaml")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--source", help="another folder of pictures, CLASS/*.jpg")
    parser.add_argument("--broker", help="take batches from a running broker instead of an embedded one")
    parser.add_argument("--job", default="animals", help="with --broker: the job's name or id")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint, losses = args.out / "checkpoint.pt", args.out / "losses.jsonl"

    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order: the losses of two runs are equal to the last bit
    torch.use_deterministic_algorithms(True)
    model = cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    if args.broker:
        loader = shardmill.torch.Loader(args.job, broker=args.broker)
    else:
        loader = shardmill.torch.Loader(args.pipeline, workers=args.workers, source=args.source)

    steps = epoch = 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        loader.load_state_dict(state["loader"])
        steps, epoch = state["steps"], state["loader"]["epoch"]
        print(f"goes on at epoch {epoch}, step {steps} of all")
    cut_back(losses, steps)

    with loader, open(losses, "a") as log:
        while epoch < args.epochs:
            loader.set_epoch(epoch)
            for batch in loader:
                images, labels = batch["image"].float() / 255, batch["label"]
                each = functional.cross_entropy(model(images), labels, reduction="none")
                loss = each[~batch["padding"]].mean()  # what only fills the last batch teaches nothing
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                steps += 1
                log.write(json.dumps({"epoch": batch.epoch, "step": batch.step, "loss": loss.item(),
                                      "digest": batch.digest}) + "\n")
                log.flush()
                if steps % args.save_every == 0:
                    save(checkpoint, {"model": model.state_dict(), "optimizer": optimizer.state_dict(),
                                      "loader": loader.state_dict(), "steps": steps})
                    loader.commit()
            print(f"epoch {epoch}: loss {loss.item():.4f}", flush=True)
            epoch += 1
        save(checkpoint, {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict(),
                          "steps": steps})


if __name__ == "__main__":
    main()
