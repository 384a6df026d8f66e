"""
The paper's data sets in the layouts in which they are distributed: [`find_paper_dataset`] gives one by its name.

Each is described in a file of its own, which registers it when it is imported here. To add one, write such a file
(`ferv39k.py` is the shortest, `mafw.py` has folds) and import it below; docs/data_sets.md goes through it.
"""

from .affectnet import AFFECTNET_7, AFFECTNET_8
from .dfew import DFEW
from .ferplus import FERPLUS
from .ferv39k import FERV39K
from .mafw import MAFW
from .rafdb import RAF_DB
from .registry import (
    PAPER_DATASETS,
    AuthorsScores,
    ExpectedCounts,
    PaperDataset,
    Score,
    SplitContents,
    find_paper_dataset,
    register,
)

__all__ = [
    "AFFECTNET_7",
    "AFFECTNET_8",
    "DFEW",
    "FERPLUS",
    "FERV39K",
    "MAFW",
    "PAPER_DATASETS",
    "RAF_DB",
    "AuthorsScores",
    "ExpectedCounts",
    "PaperDataset",
    "Score",
    "SplitContents",
    "find_paper_dataset",
    "register",
]
