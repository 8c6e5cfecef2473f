"""Arrays by name in a safetensors file, and writing that cannot leave half a file."""

import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy


def write_beside(path: str | Path, content: bytes) -> None:
    """Write `content` into a temporary file beside `path`, then rename it to `path`.

    Either the whole new file is there afterwards or the old one, untouched.
    Raises OSError that names the file and the reason (a full disk, no permission).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...     write_beside(d + "/a", b"x"); open(d + "/a", "rb").read()
    b'x'
    """
    path = Path(os.path.realpath(path))  # a link stays, its target is replaced
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise OSError(
            error.errno, f"could not write {path}: {reason}; nothing was changed there"
        ) from error


def _mode(path: Path) -> int:
    """The permissions of the file that is replaced, or those of a new file."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def check_writable(folder: str | Path) -> None:
    """Raise OSError now, not after the work, when nothing can be written there.

    >>> check_writable(tempfile.gettempdir())
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except FileExistsError as error:
        raise OSError(f"{folder} is a file, not a folder; nothing was done") from error
    except OSError as error:
        raise OSError(
            f"cannot write into {folder}: {error.strerror}; nothing was done"
        ) from error


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Save arrays by name as safetensors, atomically.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as d:
    ...     save_tensors(d + "/w", {"a": np.ones(2)}); load_tensors(d + "/w")["a"]
    array([1., 1.])
    """
    whole = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    for (name, array), before in zip(whole.items(), tensors.values(), strict=True):
        if array.shape != before.shape:  # ascontiguousarray makes 0-d arrays 1-d
            whole[name] = array.reshape(before.shape)
    write_beside(path, safetensors.numpy.save(whole, dict(metadata or {}) or None))


def load_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Arrays by name from a safetensors file.

    Raises FileNotFoundError, or ValueError when the file is corrupt or cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no weight file {path}")
    try:
        return safetensors.numpy.load(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole safetensors file ({error}); it may have been cut "
            "short while copying: fetch or save it again"
        ) from error
    except KeyError as error:
        raise ValueError(
            f"{path} holds dtype {error}, which NumPy does not have (bfloat16?); "
            "convert the file to float32 or float16 first"
        ) from error
