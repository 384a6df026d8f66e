"""Where a command writes a new folder."""

from pathlib import Path


def check_output_folder(folder: Path, overwrite: bool = False) -> None:
    """
    Raises:
        FileExistsError: if `folder` is a file, or a folder that isn't empty, and `overwrite` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, and a folder is to be written: name another.")
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise FileExistsError(
            f"{folder} exists and is not an empty folder: name another, or allow it to be overwritten (--overwrite)."
        )


__all__ = ["check_output_folder"]
