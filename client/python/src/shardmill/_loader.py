"""The loader: epochs of batches, a position to put into checkpoints, and where it all comes from.

Before it: a broker's job, or a pipeline file that _server.py serves. After it: the training loop; torch.py makes tensors of it.
"""
from __future__ import annotations

import atexit
import logging
import os
import re
import threading
import weakref
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

import numpy as np

from . import _library
from ._batch import Batch
from ._library import BatchView, CancelledError, ShardmillError, failure
from ._server import Server
from ._session import Session

log = logging.getLogger("shardmill")

_FIRST_WARNING_SECONDS = 10.0
_SERVER_GRACE_SECONDS = 2.0
_TOKEN = re.compile(r"(?P<mark>[^:]+):(?P<epoch>\d+):(?P<position>\d+):(?P<rest>.+)", re.S)

# A token, the token behind this view, the view, whether the session has yet to be moved there. The second holds from the
# moment on in which the session lets go of the view: one single step, so that an interrupt finds the loader before or after
# the batch (or the move), never in between.
_Place = Tuple[Optional[str], Optional[str], Optional[BatchView], bool]

_loaders: "weakref.WeakSet[Loader]" = weakref.WeakSet()


class Loader:
    """Batches of one rank, epoch by epoch, in an order that only pipeline, dataset, seed and world size decide.

    >>> loader = Loader("pets", broker="tcp://10.0.0.7:5570", rank=0, world_size=2)   # a job of a running broker
    >>> loader = Loader("pipelines/photos.yaml", workers=2)                           # embedded
    >>> for epoch in range(90):
    ...     loader.set_epoch(epoch)
    ...     for batch in loader:
    ...         train(batch["image"], batch["label"])

    Embedded, `shardmill serve` runs as a child of this process and ends with it, also when it is killed. Each rank then has a
    server of its own, and all of them make the same order.

    Args:
        job: Name or id of a job of the broker, or, without `broker`, the path of a pipeline file.
        broker: Endpoint, `tcp://HOST:PORT` or `ipc://PATH`. None: embedded.
        rank, world_size: As in torch.distributed.
        workers: Embedded: worker processes; None: one for each core.
        source: Embedded: path of the dataset, instead of the pipeline file's.
        seed: Embedded: instead of the pipeline file's.
        epochs: Embedded: how many there are; None: without end.
        part: Embedded: "train" (None) or "val", of a pipeline with `split:`. A broker's held-out part is the job "NAME/val".
        state: Embedded: a folder for the journal and the dataset's index. They then survive this process: a loader that is given no
            `load_state_dict` goes on from what was last committed, and the dataset is not looked at again. None: a temporary one.
        credit_bytes: Room for batches that are made and not released yet; 0: four batches.
        key_dir: Folder of CURVE keys, from `shardmill keygen`.
        transport: "shm" or "tcp" to insist; None: shared memory on the broker's host, else TCP.
        timeout: Seconds that a step may be waited for; then TimedOutError says who waits for whom. None: as long as it takes, with
            a warning in the log after 10 s, 20 s, 40 s…
        open_timeout: Seconds to find the broker.
        verbose: Embedded: let the server's messages through to stderr.
        weights: Batches must have `weight`, each sample's importance weight. They have it, whatever this says, when the
            pipeline says `output: {weights: true}`. Else it is the weight of the sample's class, from counts: see
            `log_prior_shift`. By a column of weights (WeightedSampler) each sample has its own, and without that key of the
            pipeline the first use fails and says so.

    Raises (here or at the first use):
        ShardmillError: what broker or library said. `code` tells the kind; of these kinds it is a class of its own: TimedOutError
            (a TimeoutError too), MissingError (no such job), BusyError (the rank is taken), DiffersError (state of another
            pipeline, dataset or seed), CancelledError.
        TypeError, ValueError: arguments that do not go together.
        ImportError: libshardmill.so was not found.

    Nothing is opened before the first of `iter`, `len`, `classes`, `info`, `commit` or `state_dict`. One thread iterates; batches may be
    released in any thread. After os.fork() a child may not use a loader that its parent has opened, but may make its own.
    """

    def __init__(self, job: Union[str, "os.PathLike[str]"], *, broker: Optional[str] = None, rank: int = 0,
                 world_size: int = 1, workers: Optional[int] = None,
                 source: Union[str, "os.PathLike[str]", None] = None, seed: Optional[int] = None,
                 epochs: Optional[int] = None, state: Union[str, "os.PathLike[str]", None] = None, credit_bytes: int = 0,
                 key_dir: Union[str, "os.PathLike[str]", None] = None, transport: Optional[str] = None,
                 timeout: Optional[float] = None, open_timeout: float = 30.0, verbose: bool = False,
                 weights: bool = False, part: Optional[str] = None) -> None:
        self._session: Optional[Session] = None
        self._server: Optional[Server] = None
        self._foreign: Optional[int] = None
        self._closed = False
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} in a world of {world_size} (hint: ranks count from 0)")
        if part not in (None, "train", "val"):
            raise ValueError(f"part '{part}' is neither 'train' nor 'val'")
        if transport not in (None, "shm", "tcp"):
            raise ValueError(f"transport '{transport}' is neither 'shm' nor 'tcp'")
        if broker is not None:
            given = {"workers": workers, "source": source, "seed": seed, "epochs": epochs, "part": part, "state": state}
            wrong = [f"{name}=" for name, value in given.items() if value is not None]
            if wrong:
                raise TypeError(f"{', '.join(wrong)} is for the embedded server; with broker= these were chosen at "
                                "`shardmill submit`")
        elif not os.path.isfile(job):
            raise FileNotFoundError(f"'{os.fspath(job)}' is not a pipeline file (hint: broker=ENDPOINT for a job by its name)")
        self._job = os.fspath(job)
        self._broker, self._rank, self._world_size = broker, rank, world_size
        self._serve = {"workers": workers, "source": None if source is None else os.fspath(source), "seed": seed,
                       "epochs": epochs, "part": part, "state": None if state is None else os.fspath(state), "verbose": verbose}
        self._credit_bytes, self._transport = credit_bytes, transport
        self._key_dir = None if key_dir is None else os.fspath(key_dir)
        self._timeout, self._open_timeout = timeout, open_timeout
        self._place: _Place = (None, None, None, False)
        self._classes: Optional[List[str]] = None
        self._weights_wanted, self._weights = weights, None
        self._wanted_epoch: Optional[int] = None
        self._iteration = 0
        self._current: Optional[Batch] = None
        self._info: Dict[str, Any] = {}
        self._opening = threading.RLock()
        _loaders.add(self)

    # ---- epochs ----

    def __iter__(self) -> Iterator[Any]:
        """The rest of the present epoch: all of it, unless a checkpoint was loaded or an iteration was left half-way."""
        self._opened()
        self._apply_epoch()
        self._iteration += 1
        return self._epoch(self._iteration)

    def _epoch(self, iteration: int) -> Iterator[Any]:
        while True:
            if self._iteration != iteration:
                raise ShardmillError("another iteration over this loader was begun: an older one cannot go on")
            self._release_current()
            session = self._opened()
            self._move(session)
            result, view = session.next(self._timeout, self._idle)
            if result != _library.NEXT_BATCH:
                self._token = session.state()
                return
            token = session.state()
            batch = self._make(session, view, token)
            self._current = batch
            self._place = (self._token, token, view, False)
            batch.take()
            del view
            yield batch
            del batch

    def __len__(self) -> int:
        """Steps of a whole epoch, the same for every rank. The first epoch after `load_state_dict` may have fewer left."""
        self._opened()
        return int(self._info["steps_per_epoch"])

    @property
    def epoch(self) -> int:
        """Of the next batch, counting from 0."""
        if self._wanted_epoch is not None:
            return self._wanted_epoch
        self._opened()
        return int(_parse(self._token)["epoch"])

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is of this epoch. When the loader is in it already, it goes on where it is: so a loop
        `for epoch in range(start, end): loader.set_epoch(epoch)` may be resumed in the middle of an epoch."""
        if epoch < 0:
            raise ValueError(f"epoch {epoch} (hint: they count from 0)")
        self._wanted_epoch = int(epoch)

    def rewind(self) -> None:
        """Back to the start of the present epoch."""
        self._opened()
        self._go(_at(self._token, int(_parse(self._token)["epoch"])))

    @property
    def classes(self) -> List[str]:
        """Names of the dataset's classes: `classes[label]`. Asked of the broker once. Raises TimedOutError after `open_timeout`."""
        if self._classes is None:
            self._classes = self._opened().classes(self._open_timeout)
        return list(self._classes)

    def class_counts(self) -> List[Dict[str, int]]:
        """Of each class, in the order of `classes`: `present`, its samples in what is drawn from; `drawn`, its positions in an epoch
        over all ranks (another number when the pipeline rebalances); `last_epoch` and `this_epoch`, how often this loader has
        handed it out, padding not counted. Empty for a job with more than 32768 classes."""
        return self._opened().class_counts()

    def log_prior_shift(self) -> np.ndarray:
        """log(share in the dataset) - log(share in an epoch) of each class, float64: added to a model's logits it undoes what
        rebalancing did to the classes' priors. 0 without rebalancing and for a class without samples, NaN for one that is never drawn. Its exponential
        is the importance weight of a class's samples, unless they are drawn by a column of weights. A loss that is weighted with `batch["weight"]`
        estimates the loss over the dataset as it is."""
        return _log_prior_shift(self._opened())

    # ---- checkpoints ----

    def state_dict(self) -> Dict[str, Any]:
        """The position behind the last batch that was yielded, as torchdata's StatefulDataLoader has it: store it with the model
        after the step. It is small, text and numbers, and does not depend on the world size."""
        if self._token is None:
            self._opened()
        token = self._token
        if self._wanted_epoch is not None:
            token = self._target()
        place = _parse(token)
        return {"version": 1, "token": token, "epoch": int(place["epoch"]), "position": int(place["position"])}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on behind the batch after which `state_dict` was called: nothing is skipped, nothing comes twice. Arrays that you
        hold stay as they are.

        Raises ValueError for what is not of `state_dict`; DiffersError at the next use when it is of another pipeline,
        dataset or seed."""
        if not isinstance(state, Mapping) or not isinstance(state.get("token"), str):
            raise ValueError("this is not what Loader.state_dict() returned: it has no 'token'")
        _parse(state["token"])
        self._wanted_epoch = None
        self._go(state["token"])

    def commit(self, state: Optional[Mapping[str, Any]] = None, timeout: float = 30.0) -> None:
        """Tells the broker that this state (None: the present one) is in a checkpoint, and waits until its journal holds it.
        A trainer that comes without a state then goes on from here. Raises TimedOutError when the broker does not answer."""
        session = self._opened()
        if state is None:
            self._apply_epoch()
        token = (self.state_dict() if state is None else state)["token"]
        self._move(session)
        session.commit(token, timeout)

    # ---- facts, end ----

    def info(self) -> Dict[str, Any]:
        """Facts: job, steps_per_epoch, positions (samples of an epoch), shape, dtype, transport ("shm" or "tcp"), how long was waited,
        what is waited for now, and `audit` of the last epoch: planned, delivered, padded, dropped, quarantined, digest."""
        return self._opened().info()

    def close(self) -> None:
        """Leaves the broker and ends the embedded server. Arrays that you hold stay readable; while you hold one, the broker
        still counts this rank as taken. Twice is harmless."""
        self._closed = True
        self._leave()
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_foreign", 0) is None:
            try:
                self._current = None  # its user may still look at it
                self.close()
            except Exception:  # the interpreter is ending
                pass

    def __repr__(self) -> str:
        where = f"broker={self._broker!r}" if self._broker else "embedded"
        return f"<{type(self).__module__}.Loader {self._job!r}, {where}, rank {self._rank} of {self._world_size}>"

    # ---- inside ----

    def _class_weights(self, session: Session) -> Optional[np.ndarray]:
        if self._info.get("weights") == "in_batches":
            return None
        if self._weights_wanted and self._weights is None:
            self._weights = np.exp(_log_prior_shift(session)).astype(np.float32)
        return self._weights

    def _make(self, session: Session, view: BatchView, token: str) -> Any:
        """torch.py makes tensors here."""
        return Batch(session, view, token, self._class_weights(session))

    @property
    def _token(self) -> Optional[str]:
        """Behind the last batch that was yielded; None when nothing was opened yet."""
        before, behind, view, _ = self._place
        return before if view is not None and self._session is not None and self._session.is_pending(view) else behind

    @_token.setter
    def _token(self, token: Optional[str]) -> None:
        self._place = (None, token, None, False)

    def _release_current(self) -> None:
        if self._current is not None:
            self._current.release()
            self._current = None

    def _opened(self) -> Session:
        if self._closed:
            raise CancelledError("this loader is closed")
        if self._foreign is not None:
            raise ShardmillError(f"this loader was opened by process {self._foreign}, and this is its child {os.getpid()} "
                                 "(hint: make a Loader after the fork)")
        with self._opening:
            if self._session is not None and self._server is not None and self._place[3] and self._server.ended():
                self._leave()  # a new server begins there
            if self._session is None:
                self._open()
            return self._session

    def _open(self) -> None:
        job, endpoint = self._job, self._broker
        if endpoint is None:
            if self._server is None or self._server.ended():
                self._server = Server(self._job, timeout=None, **self._serve)
            job, endpoint = self._server.job, self._server.endpoint
        session = Session(broker=endpoint, job=job, rank=self._rank, world_size=self._world_size, token=self._token,
                          credit_bytes=self._credit_bytes, timeout=self._open_timeout, key_dir=self._key_dir,
                          transport=self._transport)
        try:
            self._info = session.info()
            if self._weights_wanted and self._info.get("weights") == "by_sample":
                raise ShardmillError(f"job '{job}' draws each sample by a weight of its own, so the counts of classes do not tell "
                                     "its importance weight (hint: output: {weights: true} in the pipeline file)")
            self._token = session.state()
            self._session = session
        except BaseException:  # Ctrl-C: else this rank would be taken
            session.close()
            raise

    def _leave(self) -> None:
        self._release_current()
        if self._session is not None:
            self._session.close()
            self._session = None

    def _go(self, token: str) -> None:
        """The next use is at this token."""
        self._release_current()
        self._place = (None, token, None, True)
        self._iteration += 1

    def _move(self, session: Session) -> None:
        """Takes the session where _go has said. Done twice it changes nothing."""
        _, token, _, wanted = self._place
        if wanted:
            session.seek(token)
            self._token = token

    def _target(self) -> str:
        return self._token if int(_parse(self._token)["epoch"]) == self._wanted_epoch else _at(self._token, self._wanted_epoch)

    def _apply_epoch(self) -> None:
        if self._wanted_epoch is None:
            return
        target = self._target()
        if target != self._token:
            self._go(target)
        self._wanted_epoch = None

    def _idle(self, waited: float, why: str) -> None:
        """Between two slices of a wait."""
        server = self._server
        if server is not None and server.ended() and waited > _SERVER_GRACE_SECONDS:
            raise failure(f"the embedded server has ended: {server.last_words()}", "peer")
        if waited < _FIRST_WARNING_SECONDS:
            self._warn_at = _FIRST_WARNING_SECONDS
        elif waited >= self._warn_at:
            self._warn_at *= 2
            log.warning("waiting for a batch since %.0f s: %s", waited, why)

    _warn_at = _FIRST_WARNING_SECONDS

    def _after_fork(self) -> None:
        """In the child: what the parent has opened is the parent's."""
        self._opening = threading.RLock()
        if self._session is not None or self._server is not None:
            self._foreign = os.getppid()
            self._current = None


def _log_prior_shift(session: Session) -> np.ndarray:
    counts = session.class_counts()
    if not counts:
        raise ShardmillError("this job does not tell the counts of its classes (hint: it does so for up to 32768)")
    present, drawn = (np.array([count[key] for count in counts], float) for key in ("present", "drawn"))
    with np.errstate(divide="ignore", invalid="ignore"):
        shift = np.log(present / present.sum()) - np.log(drawn / drawn.sum())
    shift[drawn == 0] = np.nan
    shift[present == 0] = 0  # a number that no sample has as its label
    return shift


def _parse(token: str) -> "re.Match[str]":
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise ValueError(f"'{token[:60]}' is not a token (hint: Loader.state_dict() returns one)")
    return found


def _at(token: str, epoch: int) -> str:
    """The same job's token at the start of an epoch."""
    place = _parse(token)
    return f"{place['mark']}:{epoch}:0:{place['rest']}"


def _close_all() -> None:
    for loader in list(_loaders):
        if loader._session is not None and loader._foreign is None:
            loader._session.close_at_exit()
            loader._session = None


def _fork_all() -> None:
    for loader in list(_loaders):
        loader._after_fork()


atexit.register(_close_all)  # after _server's, so it runs before: first the trainers leave, then the server ends
os.register_at_fork(after_in_child=_fork_all)
