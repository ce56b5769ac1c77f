"""A batch: NumPy arrays over memory that the C library maps, and the lease that gives this memory back.

Before it: _session.py has a view. After it: the training loop. Every array holds the lease, so memory is reused only when
the last array over it is gone; a batch that was released lets go of its own arrays and says so when it is asked for one.
"""
from __future__ import annotations

import ctypes
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import numpy as np

from . import _library
from ._library import BatchView, ReleasedError
from ._session import Session

_DTYPES = {
    _library.UINT8: np.dtype(np.uint8),
    _library.FLOAT32: np.dtype(np.float32),
    _library.FLOAT16: np.dtype(np.float16),
    _library.BFLOAT16: np.dtype(np.uint16),  # NumPy has no bfloat16: its bits
    _library.FLOAT64: np.dtype(np.float64),
}
NAMES = {_library.UINT8: "uint8", _library.FLOAT32: "float32", _library.FLOAT16: "float16",
         _library.BFLOAT16: "bfloat16", _library.FLOAT64: "float64"}


class Lease:
    """Stands for one view's memory: arrays over it hold this, and when it is gone the session gives the view back."""

    def __init__(self, session: Session, view: BatchView) -> None:
        self._session, self._view = session, view

    def take(self) -> None:
        self._session.take(self._view, self)


def buffer(lease: Lease, address: int, size: int) -> ctypes.Array:
    """size bytes at address as a buffer that keeps the lease. ctypes calls it writable; the mapping is not."""
    bytes_ = (ctypes.c_uint8 * size).from_address(address)
    bytes_.lease = lease
    return bytes_


def array(lease: Lease, address: int, shape: Tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A read-only array over the lease's memory, without a copy."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if size == 0:
        return np.empty(shape, dtype)
    return np.frombuffer(memoryview(buffer(lease, address, size)).toreadonly(), dtype).reshape(shape)


class Exported:
    """An array's memory for other libraries, by DLPack: `torch.from_dlpack(batch.dlpack())`, `jax.dlpack.from_dlpack`…

    DLPack as these libraries speak it cannot say "read-only": whoever writes into what it gets here ends with SIGSEGV.
    """

    def __init__(self, writable_view: np.ndarray) -> None:
        self._array = writable_view

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return self._array.__dlpack_device__()


class Batch(Mapping[str, Any]):
    """One step of one rank, as a mapping with these keys:

    ========= ======================= ================================================================
    key       shape, dtype            what
    ========= ======================= ================================================================
    image     (N,C,H,W) or (N,H,W,C)  as the pipeline's `layout` says; uint8, float32, float16, or uint16
                                      holding the bits of bfloat16 (see `dtype`)
    features  (N,columns)             instead of image, of a pipeline that makes rows; float32 or float64
    label     (N,) int64              the class, an index into `Loader.classes`
    index     (N,) uint64             which sample of the dataset it is
    padding   (N,) bool               True: repeated from the start of the epoch's order, to fill the last batch
    weight    (N,) float32            each sample's importance weight, natural probability / that of being drawn:
                                      when the pipeline says `output: {weights: true}`, then 0 of padding, or with
                                      `Loader(weights=True)`
    ========= ======================= ================================================================

    Arrays are read-only and lie in shared memory or in a receive buffer, on 64-byte boundaries. The next iteration, or
    `release()`, releases the batch: `batch["image"]` then raises ReleasedError. An array that you still hold stays valid for as
    long as you hold it, and for as long counts against the loader's credit: copy what you keep for longer than a few steps.
    """

    def __init__(self, session: Session, view: BatchView, token: str, weights: Optional[np.ndarray] = None) -> None:
        lease = Lease(session, view)
        self.epoch: int = view.epoch
        """Counts from 0."""
        self.step: int = view.step
        """Within the epoch, from 0, at this world size."""
        self.digest: str = view.digest.decode()
        """XXH3-128 of the batch, in hexadecimal: the same for any number of workers, and after any crash."""
        self.token: str = token
        """The position behind this batch, as `Loader.commit` takes it."""
        self.dtype: str = NAMES[view.type]
        """Of image or features: uint8, float32, float16, bfloat16 or float64."""
        self.tensor: str = "features" if view.ndim == 2 else "image"
        """The key of the samples themselves."""
        n = view.count
        shape = tuple(view.shape[: view.ndim])
        flags = array(lease, view.flags, (n,), np.dtype(np.uint8))
        self._lease: Optional[Lease] = lease
        self._place = (view.data, shape, _DTYPES[view.type], view.data_bytes)
        self._arrays: Dict[str, Any] = {
            self.tensor: array(lease, view.data, shape, _DTYPES[view.type]),
            "label": array(lease, view.label, (n,), np.dtype(np.int64)),
            "index": array(lease, view.index, (n,), np.dtype(np.uint64)),
            "padding": (flags & _library.FLAG_PADDING) != 0,
        }
        if view.weight:
            self._arrays["weight"] = array(lease, view.weight, (n,), np.dtype(np.float32))
        elif weights is not None:  # of each class
            self._arrays["weight"] = weights[self._arrays["label"]]
            self._arrays["weight"].flags.writeable = False
        self._keys = tuple(self._arrays)
        self._more = {
            "position": array(lease, view.position, (n,), np.dtype(np.uint64)),
            "substitute": (flags & _library.FLAG_SUBSTITUTE) != 0,
        }
        self._arrays["padding"].flags.writeable = False
        self._more["substitute"].flags.writeable = False

    @property
    def position(self) -> np.ndarray:
        """(N,) uint64: each sample's position in the epoch's order, over all ranks."""
        self._check()
        return self._more["position"]

    @property
    def substitute(self) -> np.ndarray:
        """(N,) bool: True where a sample could not be read and another one stands in its place."""
        self._check()
        return self._more["substitute"]

    def take(self) -> None:
        """The loader has handed it out: from now on the memory is this batch's to give back."""
        self._lease.take()

    @property
    def released(self) -> bool:
        return self._lease is None

    def release(self) -> None:
        """Lets go of the batch before the next iteration does. Twice is harmless."""
        self._arrays, self._more, self._lease = {}, {}, None

    def dlpack(self, key: Optional[str] = None) -> Exported:
        """One array (None: image or features) for other libraries, without a copy; see Exported for what they must not do.
        bfloat16 goes as uint16."""
        self._check()
        if key is None or key == self.tensor:
            address, shape, dtype, size = self._place
            return Exported(np.frombuffer(buffer(self._lease, address, size), dtype).reshape(shape))
        if key in ("label", "index", "weight") and key in self._keys:
            return Exported(np.array(self._arrays[key]))
        raise KeyError(key)

    def __dlpack__(self, **options: Any) -> Any:
        """Of image or features."""
        return self.dlpack().__dlpack__(**options)

    def __dlpack_device__(self) -> Tuple[int, int]:
        return self.dlpack().__dlpack_device__()

    def __getitem__(self, key: str) -> Any:
        self._check()
        return self._arrays[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        where = f"epoch {self.epoch}, step {self.step}"
        if self._lease is None:
            return f"<Batch of {where}, released>"
        return f"<Batch of {where}: {self.tensor} {self.dtype}{list(self._place[1])}>"

    def _check(self) -> None:
        if self._lease is None:
            raise ReleasedError(f"the batch of epoch {self.epoch}, step {self.step} was released (hint: the next iteration "
                                "does that; take its arrays before, and copy what you keep)")
