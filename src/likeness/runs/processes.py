"""Processes that train or extract together: what is said where one of them has gone."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from likeness.errors import LikenessError

_GONE = re.compile(
    r"(closed|reset) by peer|broken pipe|socket closed|remote process exited|communicator.*aborted", re.I
)


@contextmanager
def told_apart() -> Iterator[None]:
    """Within, what the backend raises because another process has gone is RANK-LOST: that one's own message counts."""
    try:
        yield
    except RuntimeError as error:
        if not _GONE.search(str(error)):
            raise
        raise LikenessError(
            "RANK-LOST",
            "another process of this job has failed or was killed; this one ends with it.",
            where="The first message above that is not RANK-LOST says why; without one it was killed from outside.",
            cause=str(error).strip().splitlines()[0],
            kept="All features, and the checkpoints in the run folder's checkpoints/.",
            fix="Mend what the other process says, then resume with the same command.",
        ) from error
