"""A fleet of simulated nodes starts fast: what only pictures need is not imported before the first picture."""

import subprocess
import sys


def test_a_site_is_built_without_astropy_and_numpy() -> None:
    script = (
        "import sys, skygw.sim.installation, skygw.sim.frame_store;"
        "print(sorted({'astropy', 'numpy'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
