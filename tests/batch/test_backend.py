"""Laws of the real backend that need no model."""

from __future__ import annotations

import subprocess
import sys


def test_importing_what_describes_a_job_does_not_load_torch() -> None:
    program = "import sys, cogbatch.batch.job; print({'torch', 'transformers', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
