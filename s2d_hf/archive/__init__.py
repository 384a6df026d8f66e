"""The prediction over whole archives of videos: resumable, on one process, several, or a Ray cluster."""

from .job import analyse_archive
from .process_job import run_processes
from .ray_job import run_ray
from .records import ArchiveRecords, ArchiveSummary, JobRunningError, read_archive, summarise
from .sources import ArchiveItem, list_videos

__all__ = [
    "ArchiveItem",
    "ArchiveRecords",
    "ArchiveSummary",
    "JobRunningError",
    "analyse_archive",
    "list_videos",
    "read_archive",
    "run_processes",
    "run_ray",
    "summarise",
]
