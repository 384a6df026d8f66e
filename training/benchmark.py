"""The old name of folds.py, which goes with the next version."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    print("training/benchmark.py is training/folds.py now; the old name goes with the next version.", file=sys.stderr)
    runpy.run_path(str(Path(__file__).with_name("folds.py")), run_name="__main__")
