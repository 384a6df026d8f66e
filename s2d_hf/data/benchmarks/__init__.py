"""
The benchmarks of the field in the layouts in which they are distributed: [`find_benchmark`] gives one by its name.

Each is described in a file of its own, which registers it when it is imported here.
"""

from .affectnet import AFFECTNET_7, AFFECTNET_8
from .dfew import DFEW
from .ferplus import FERPLUS
from .ferv39k import FERV39K
from .mafw import MAFW
from .rafdb import RAF_DB
from .registry import (
    BENCHMARKS,
    AuthorsScores,
    Benchmark,
    ExpectedCounts,
    Score,
    SplitContents,
    find_benchmark,
    register,
)

__all__ = [
    "AFFECTNET_7",
    "AFFECTNET_8",
    "BENCHMARKS",
    "DFEW",
    "FERPLUS",
    "FERV39K",
    "MAFW",
    "RAF_DB",
    "AuthorsScores",
    "Benchmark",
    "ExpectedCounts",
    "Score",
    "SplitContents",
    "find_benchmark",
    "register",
]
