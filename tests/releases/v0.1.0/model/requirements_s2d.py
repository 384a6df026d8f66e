"""
What S2D's code asks of transformers. Imported before everything else, since older versions lack what the other files
import, and would say only that.
"""

import transformers
from packaging.version import Version

MINIMUM_TRANSFORMERS = "5.17.0"

if Version(Version(transformers.__version__).base_version) < Version(MINIMUM_TRANSFORMERS):
    raise ImportError(
        f"S2D models need transformers {MINIMUM_TRANSFORMERS} or later, and {transformers.__version__} is installed: "
        f'pip install --upgrade "transformers>={MINIMUM_TRANSFORMERS}"'
    )

__all__ = ["MINIMUM_TRANSFORMERS"]
