"""What training reads: labelled clips and images, sampled, augmented and checked."""

from .augmentation import ClipAugmentation, RandomErasing, apply_rand_augment_op, mixup_cutmix
from .cache import CachedClips, cache_clips
from .dataset import ClipCollator, ClipDataset
from .sampling import evaluation_windows, random_window, resize_short_side, spatial_crops
from .sources import (
    HubItem,
    LabelledSamples,
    Sample,
    check_sources,
    from_class_folders,
    from_hub,
    from_table,
    read_sample,
)

__all__ = [
    "CachedClips",
    "ClipAugmentation",
    "ClipCollator",
    "ClipDataset",
    "HubItem",
    "LabelledSamples",
    "RandomErasing",
    "Sample",
    "apply_rand_augment_op",
    "cache_clips",
    "check_sources",
    "evaluation_windows",
    "from_class_folders",
    "from_hub",
    "from_table",
    "mixup_cutmix",
    "random_window",
    "read_sample",
    "resize_short_side",
    "spatial_crops",
]
