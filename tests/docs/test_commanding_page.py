"""The example of docs/commanding.md, run as it stands against a whole gateway; its table of exit codes."""

import re
from pathlib import Path
from typing import Any

from skygw.cli.command import HOW_IT_ENDS
from skygw.sim.journal import Action
from skygw.sim.station import Station
from skygw.testing.gateway import TestGateway

PAGE = (Path(__file__).parents[2] / "docs" / "commanding.md").read_text(encoding="utf-8")


async def test_the_service_points_a_telescope_under_a_lease_and_says_what_became_of_it(
    gateway: TestGateway, installation: Station
) -> None:
    (source,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(source, "docs/commanding.md", "exec"), names)  # noqa: S102 - our own page
    telescope = installation.site.telescopes[0]
    arguments = (gateway.internal_url, gateway.service_token(), telescope.uid, 250.4, 36.5)
    said = await names["point"](*arguments)
    async with gateway.client(service="planner") as planner:
        await planner.post("/internal/leases", json={"telescopeUid": str(telescope.uid)})
    said_to_another = await names["point"](*arguments)

    assert said in {"succeeded", "interrupted"}
    slews = [entry for entry in installation.journal.entries() if entry.action is Action.SLEW_STARTED]
    assert len(slews) == 1
    assert said_to_another.startswith("not now: ")
    assert "planner" in said_to_another


def test_the_page_and_the_help_have_the_same_exit_codes() -> None:
    on_the_page = re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)
    assert on_the_page == re.findall(r"^  (\d+) ", HOW_IT_ENDS, re.MULTILINE)
