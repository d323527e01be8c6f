"""Loading the pytest plugin costs a test run that does not use it next to nothing."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_loading_the_plugin_imports_none_of_the_gateway() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import skygw.testing;"
        "print(sorted(set(sys.modules) - before - {'skygw', 'skygw.testing'}))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ran.stdout.strip() == "[]"
