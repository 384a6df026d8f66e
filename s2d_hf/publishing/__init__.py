"""Publishing models on the Hub: what is checked before, and the upload."""

from .cards import REQUIRED_SECTIONS, check_card
from .folders import CheckOptions, FolderReport, check_folder
from .problems import Problem
from .uploading import PublishingError, PublishResult, UploadPlan, publish_folder

__all__ = [
    "REQUIRED_SECTIONS",
    "CheckOptions",
    "FolderReport",
    "Problem",
    "PublishResult",
    "PublishingError",
    "UploadPlan",
    "check_card",
    "check_folder",
    "publish_folder",
]
