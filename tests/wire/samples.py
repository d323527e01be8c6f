"""The golden frames: one file per frame and variant, `<direction>/<kind>[.<variant>].json`, exactly as on the wire."""

from pathlib import Path
from typing import Any

from skygw.protocol.codec import from_commander, from_gateway, from_node, from_subscriber, to_commander, to_subscriber

DIRECTIONS: dict[str, Any] = {
    "from_node": from_node,
    "from_gateway": from_gateway,
    "from_subscriber": from_subscriber,
    "to_subscriber": to_subscriber,
    "from_commander": from_commander,
    "to_commander": to_commander,
}
FILES = sorted(path for name in DIRECTIONS for path in (Path(__file__).parent / name).glob("*.json"))


def direction_of(path: Path) -> str:
    return path.parent.name


def kind_of(path: Path) -> str:
    return path.name.split(".")[0]


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip("\n")


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"
