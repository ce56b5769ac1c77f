"""The loader for PyTorch: the same batches as tensors. The only module that needs torch.

Before it: _loader.py. After it: a training loop that used torch.utils.data.DataLoader.
"""
from __future__ import annotations

import os
from typing import Any, Optional, Tuple, Union

import numpy as np
import torch
import torch.distributed

from . import _batch, _library
from . import _loader as _plain
from ._library import BatchView
from ._session import Session

_DTYPES = {_library.UINT8: torch.uint8, _library.FLOAT32: torch.float32, _library.FLOAT16: torch.float16,
           _library.BFLOAT16: torch.bfloat16, _library.FLOAT64: torch.float64}


class Batch(_batch.Batch):
    """As shardmill.Batch, with tensors:

    ========= ======================= ====================================================================
    image     (N,C,H,W) or (N,H,W,C)  uint8, float32, float16 or bfloat16, over the shared memory itself
    features  (N,columns)             float32 or float64, instead of image, of a pipeline that makes rows
    label     (N,) int64              a copy
    index     (N,) int64              a copy
    padding   (N,) bool               a copy: loss[~padding] leaves out what only fills the last batch
    weight    (N,) float32            a copy, where shardmill.Batch has it: (loss * weight).mean()
    ========= ======================= ====================================================================

    PyTorch has no read-only tensors, but the image's memory is read-only: an in-place operation on it ends the process with
    SIGSEGV. `x = batch["image"].float()`, `.to(device)` and all that makes a new tensor is fine; for in-place work take
    `Loader(…, copy=True)`.
    """

    def __init__(self, session: Session, view: BatchView, token: str, weights: Optional[np.ndarray], copy: bool) -> None:
        super().__init__(session, view, token, weights)
        address, shape, _, size = self._place
        shared = _batch.buffer(self._lease, address, size)
        samples = torch.frombuffer(shared, dtype=_DTYPES[view.type]).reshape(shape)
        self._arrays = {
            self.tensor: samples.clone() if copy else samples,
            "label": torch.from_numpy(self._arrays["label"].copy()),
            "index": torch.from_numpy(self._arrays["index"].astype("int64")),
            "padding": torch.from_numpy(self._arrays["padding"].copy()),
            **{key: torch.from_numpy(self._arrays[key].copy()) for key in self._keys if key == "weight"},
        }


class Loader(_plain.Loader):
    """As shardmill.Loader, with tensors.

    Rank and world size are those of torch.distributed when it is initialised and they are not given.

    Args:
        copy: The image is a copy that may be written to, and the batch's memory is free at once. It costs one pass over the
            memory: about 5 ms for 38 MB.
        all others: of shardmill.Loader.
    """

    def __init__(self, job: Union[str, "os.PathLike[str]"], *, rank: Optional[int] = None,
                 world_size: Optional[int] = None, copy: bool = False, **options: Any) -> None:
        rank, world_size = _place_in_world(rank, world_size)
        super().__init__(job, rank=rank, world_size=world_size, **options)
        self._copy = copy

    def _make(self, session: Session, view: BatchView, token: str) -> Batch:
        return Batch(session, view, token, self._class_weights(session), self._copy)


def _place_in_world(rank: Optional[int], world_size: Optional[int]) -> Tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise TypeError("rank and world_size go together: give both or neither")
    if rank is not None:
        return rank, world_size
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
