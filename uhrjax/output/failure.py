"""Turns a failed write into one sentence."""

from __future__ import annotations

import contextlib
import errno
import pathlib
from collections.abc import Iterator

ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some of your quota",
    errno.EFBIG: "raise the file size limit (ulimit -f)",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOTDIR: "choose an output that is a folder",
    errno.EEXIST: "choose an output that is a folder",
}


@contextlib.contextmanager
def explained(target: pathlib.Path, *, then: str) -> Iterator[None]:
    """Re-raises an OSError as a sentence.

    Args:
        target: what was being written.
        then: what the user does once the cause is mended.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.filename and str(error.filename) != str(target):
            reason += f" ({error.filename})"
        advice = ADVICE.get(error.errno or 0, "look for space and permissions there")
        raise OSError(f"cannot write {target}: {reason}; {advice}, {then}") from error
