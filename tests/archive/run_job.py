"""
A job on one process or several, for tests to kill: `run_job.py SOURCE OUTPUT CALLS DELAY [STALL_LIMIT]`. Each process
leaves what it returned in OUTPUT/process<index>.txt.
"""

import os
import sys
from pathlib import Path

from accelerate import PartialState

from s2d_hf.archive import list_videos, run_processes
from tests.archive.stand_in import stand_in

source, output, calls, delay = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
stall_limit = float(sys.argv[5]) if len(sys.argv) > 5 else None
summary = run_processes(list_videos(source), output, stand_in(calls, delay), {"model": "a"}, stall_limit=stall_limit)
(output / f"process{PartialState().process_index}.txt").write_text(repr(summary))
# All is written. Now and then torch's gloo threads abort a process while it unloads, after Python has ended.
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
