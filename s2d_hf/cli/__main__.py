"""`python -m s2d_hf.cli`, which is how launchers start `s2d-hf`."""

import os
import sys

from .command import main

if __name__ == "__main__":
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # with torch 2.11, gloo may abort a process that unloads: everything is written by now
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
