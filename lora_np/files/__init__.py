"""File formats: thin layers over well-kept libraries, nothing half-written."""

from lora_np.files.weights import (
    check_writable,
    load_tensors,
    save_tensors,
    write_beside,
)

__all__ = ["check_writable", "load_tensors", "save_tensors", "write_beside"]
