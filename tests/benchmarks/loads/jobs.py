"""The load generator, in a process of its own: takes jobs as lines of JSON on stdin, answers each with one line."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from tests.benchmarks.loads.asking import ask, http_request, learn
from tests.benchmarks.loads.claiming import claim, make_tasks, take_rows
from tests.benchmarks.loads.commanding import command, commits
from tests.benchmarks.loads.cpu import cpu_seconds
from tests.benchmarks.loads.dialing import Dial, Link, LoadBroken, connect, dial, hang_up
from tests.benchmarks.loads.graphs import graph, select
from tests.benchmarks.loads.nodes import AnsweringNode, node_dial, telescope_uid
from tests.benchmarks.loads.reporting import report
from tests.benchmarks.loads.streaming import count, publish
from tests.benchmarks.loads.subscribers import (
    Want,
    deliver,
    different_wants,
    log_position,
    resume,
    subscribe_on,
    subscriber_dial,
    time_deliveries,
)
from tests.benchmarks.wire import TEXT, message, upgrade

LEASE_S = 3_600


@contextmanager
def dialled(port: int, dials: list[Dial]) -> Iterator[list[Link]]:
    links, _ = dial(port, dials)
    try:
        yield links
    finally:
        hang_up(links)


@contextmanager
def connected(port: int, count: int) -> Iterator[list[Link]]:
    links = [connect(port) for _ in range(count)]
    try:
        yield links
    finally:
        hang_up(links)


def echo_dial(path: str, size: int) -> Dial:
    text = b"x" * size
    return Dial(upgrade(path), message(TEXT, text), lambda first: first == text)


def echoed(size: int) -> bytes:
    """What a server sends back for a message of `size` bytes."""
    sent = message(TEXT, b"x" * size)
    return bytes((sent[0], sent[1] & 0x7F)) + sent[2 : -4 - size] + sent[-size:]


def echo(job: dict[str, Any]) -> dict[str, float]:
    """`at_once` messages are sent in one write on each socket, and the next when all of them are back."""
    size, at_once = job["bytes"], job["at_once"]
    with dialled(job["port"], [echo_dial("/echo", size)] * job["sockets"]) as links:
        sent, answer = message(TEXT, b"x" * size) * at_once, echoed(size) * at_once
        figures = ask(links, sent, answer=answer, seconds=job["seconds"], server=job["server"])
    return {**figures, "per_s": figures["per_s"] * at_once, "cpu_us": figures["cpu_us"] / at_once}


def get(job: dict[str, Any]) -> dict[str, float]:
    request = f"GET {job['path']} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode()
    with connected(job["port"], job["connections"]) as links:
        answer = learn(links[0], request)
        return ask(links, request, answer=answer, seconds=job["seconds"], server=job["server"])


def connects(job: dict[str, Any], held: list[Link]) -> dict[str, float]:
    """Opens sockets and leaves them open in `held`: nodes until they are welcomed, others until they are echoed to."""
    if "nodes" in job:
        dials = [node_dial(*node) for node in job["nodes"]]
    else:
        dials = [echo_dial("/echo", job["bytes"])] * job["sockets"]
    began = cpu_seconds(job["server"])
    links, took = dial(job["port"], dials)
    held += links
    return {"per_s": len(links) / took, "cpu_us": (cpu_seconds(job["server"]) - began) / len(links) * 1_000_000}


def rpc(job: dict[str, Any]) -> dict[str, float]:
    """Callers ask one node, which is answered for in this process too."""
    install_id, token = job["node"]
    body = json.dumps({"operation": "device.read", "params": {"deviceUid": install_id}}).encode()
    request = http_request("POST", f"/internal/nodes/{install_id}/direct", job["token"], body)
    with (
        dialled(job["port"], [node_dial(install_id, token)]) as (link,),
        connected(job["http_port"], job["callers"]) as callers,
    ):
        node = {link.fd: AnsweringNode(link, in_one_frame=job["in_one_frame"]).read}
        answer = learn(callers[0], request, others=node)
        return ask(callers, request, answer=answer, seconds=job["seconds"], server=job["server"], others=node)


def snapshots(job: dict[str, Any]) -> dict[str, float]:
    """Nodes publish; at the end the gateway must show the last snapshot of one of them as its latest."""
    install_id, _ = job["nodes"][0]
    with dialled(job["port"], [node_dial(*node) for node in job["nodes"]]) as links:
        publishers = [(link, node[0]) for link, node in zip(links, job["nodes"], strict=True)]
        figures, last = publish(publishers, in_arrays=job["in_arrays"], seconds=job["seconds"], server=job["server"])
        with connected(job["http_port"], 1) as (caller,):
            shown = learn(caller, http_request("GET", f"/internal/nodes/{install_id}", job["token"]))
    if last not in shown:
        raise LoadBroken(f"the last snapshot, of {last!r}, is not what is kept: {shown[-2_000:]!r}")
    return figures


def deliveries(job: dict[str, Any]) -> dict[str, float]:
    with following(job) as (links, publishers, wants):
        return deliver(links, publishers, wants, seconds=job["seconds"], server=job["server"])


def latency(job: dict[str, Any]) -> dict[str, float]:
    with following(job) as (links, publishers, wants):
        timing = {"rate": job["rate"], "seconds": job["seconds"], "server": job["server"]}
        return time_deliveries(links, publishers, wants, **timing)


@contextmanager
def following(job: dict[str, Any]) -> Iterator[tuple[list[Link], list[tuple[Link, str]], list[Want]]]:
    """Nodes, and subscribers that want different things of them."""
    install_ids = [install_id for install_id, _ in job["nodes"]]
    with (
        dialled(job["http_port"], [subscriber_dial(job["token"])] * job["subscribers"]) as links,
        dialled(job["port"], [node_dial(*node) for node in job["nodes"]]) as nodes,
    ):
        yield links, list(zip(nodes, install_ids, strict=True)), different_wants(job["subscribers"], install_ids)


def log_lines(job: dict[str, Any]) -> dict[str, float]:
    with dialled(job["port"], [node_dial(*node) for node in job["nodes"]]) as links:
        return report(links, seconds=job["seconds"], server=job["server"])


def resumed(job: dict[str, Any]) -> dict[str, float]:
    """A subscriber leaves, nodes report so many events, and the subscriber comes back."""
    with dialled(job["http_port"], [subscriber_dial(job["token"])]) as (link,):
        position = log_position(link)
    with dialled(job["port"], [node_dial(*node) for node in job["nodes"]]) as links:
        report(links, each=job["events"] // len(links), server=job["server"])
    with dialled(job["http_port"], [subscriber_dial(job["token"])]) as (link,):
        cpu = cpu_seconds(job["server"])
        took = resume(link, position, job["events"])
        return {"seconds": took, "cpu_us": (cpu_seconds(job["server"]) - cpu) / job["events"] * 1_000_000}


def puts(job: dict[str, Any]) -> dict[str, float]:
    """Nodes that count what the server sends them, and answer nothing. This server has a path for each of them."""
    dials = [replace(node_dial(*node), upgrade=upgrade(f"/node/{node[0]}", token="none")) for node in job["nodes"]]
    with dialled(job["port"], dials) as links:
        return count(links, seconds=job["seconds"], server=job["server"])


def commands(job: dict[str, Any]) -> dict[str, float]:
    """Callers send commands to nodes, each under the lease of its telescope; both ends are in this process."""
    install_ids = [install_id for install_id, _ in job["nodes"]]
    with (
        dialled(job["port"], [node_dial(*node) for node in job["nodes"]]) as nodes,
        connected(job["http_port"], job["callers"]) as callers,
    ):
        leases = {install_id: take(callers[0], job["token"], install_id) for install_id in install_ids}
        by_install = dict(zip(install_ids, nodes, strict=True))
        secrets = {install_id: secret for install_id, (_, secret) in leases.items()}
        limits = {"seconds": job["seconds"], "server": job["server"]}
        figures = command(callers, by_install, secrets, token=job["token"], **limits)
        for lease_id, secret in leases.values():
            give_back(callers[0], job["token"], lease_id, secret)
        return figures


def take(caller: Link, token: str, install_id: str) -> tuple[str, str]:
    """Takes control of the installation's telescope. Returns the lease's id and secret."""
    body = {"telescopeUid": telescope_uid(install_id), "durationS": LEASE_S}
    answer = learn(caller, http_request("POST", "/internal/leases", token, json.dumps(body).encode()))
    lease = json.loads(answer.partition(b"\r\n\r\n")[2])
    return lease["id"], lease["leaseUid"]


def give_back(caller: Link, token: str, lease_id: str, secret: str) -> None:
    body = json.dumps({"leaseUid": secret}).encode()
    learn(caller, http_request("POST", f"/internal/leases/{lease_id}/release", token, body))


def committed(job: dict[str, Any]) -> dict[str, float]:
    return commits(job["url"], connections=job["connections"], seconds=job["seconds"])


def claims(job: dict[str, Any]) -> dict[str, float]:
    make_tasks(job["url"], job["telescopes"], job["each"])
    tokens = [token for _, token in job["nodes"]]
    with connected(job["port"], len(tokens)) as nodes:
        return claim(nodes, tokens, seconds=job["seconds"], server=job["server"])


def takes(job: dict[str, Any]) -> dict[str, float]:
    instruments = make_tasks(job["url"], job["telescopes"], job["each"])
    return take_rows(job["url"], instruments, seconds=job["seconds"])


LOADS = {
    "claims": claims,
    "takes": takes,
    "commands": commands,
    "commits": committed,
    "echo": echo,
    "get": get,
    "graph": graph,
    "rpc": rpc,
    "snapshots": snapshots,
    "puts": puts,
    "deliveries": deliveries,
    "latency": latency,
    "log lines": log_lines,
    "resume": resumed,
    "select": select,
}


def done(job: dict[str, Any], held: list[Link]) -> dict[str, float]:
    if job["do"] == "connect":
        return connects(job, held)
    if job["do"] == "listen":
        held += dial(job["http_port"], [subscriber_dial(job["token"])] * job["sockets"])[0]
        return {}
    if job["do"] == "subscribe":
        subscribe_on(held[-job["sockets"] :], job["stream"], job["each"], job["install_ids"])
        return {}
    if job["do"] == "release":
        hang_up(held)
        held.clear()
        return {}
    return LOADS[job["do"]](job)


def main() -> None:
    """Until stdin ends. What `connect` and `listen` opened is held until `release`."""
    held: list[Link] = []
    for line in sys.stdin:
        sys.stdout.write(json.dumps(done(json.loads(line), held)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
