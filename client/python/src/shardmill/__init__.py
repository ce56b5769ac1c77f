"""Shardmill: batches for training loops, augmented by worker processes, in an order that survives any crash.

`Loader` gives NumPy arrays; `shardmill.torch.Loader` gives tensors. Reading order of the code: _loader.py, _session.py,
_library.py (the C library's calls), _batch.py (memory), _server.py (the embedded server), torch.py.
"""
from ._batch import Batch
from ._library import (BusyError, CancelledError, DiffersError, MissingError, ReleasedError, ShardmillError, TimedOutError,
                       version)
from ._loader import Loader

__all__ = ["Batch", "BusyError", "CancelledError", "DiffersError", "Loader", "MissingError", "ReleasedError",
           "ShardmillError", "TimedOutError", "version"]
