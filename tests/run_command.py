"""
`s2d-hf` in a process where the authors' landmark detector lies at another address: `python -m tests.run_command
ADDRESS GIT_BLOB_ID COMMANDS`.

COMMANDS is a JSON list of lists of arguments. What each printed and its exit code are printed as JSON at the end.
"""

import contextlib
import io
import json
import sys

from s2d_hf import downloads, model_sources
from s2d_hf.cli import main

downloads.LANDMARK_ADDRESS = sys.argv[1]
downloads.LANDMARK_BLOB = model_sources.LANDMARK_BLOB = sys.argv[2]
results = []
for arguments in json.loads(sys.argv[3]):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(arguments)
    results.append({"returncode": code, "stdout": out.getvalue(), "stderr": err.getvalue()})
print(json.dumps(results))
