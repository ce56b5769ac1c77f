"""Shardmill: batches for training loops, augmented by worker processes, in an order that survives any crash.

`Loader` gives NumPy arrays; `shardmill.torch.Loader` gives tensors. Reading order of the code: _loader.py, _session.py,
_library.py (the C library's calls), _batch.py (memory), _server.py (the embedded server), torch.py.
"""
from ._batch import Batch
from ._library import ReleasedError, ShardmillError, version
from ._loader import Loader

__all__ = ["Batch", "Loader", "ReleasedError", "ShardmillError", "version"]
