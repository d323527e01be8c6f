"""A node in 120 lines: `python -u minimal_node.py URL INSTALL_ID FOLDER`, with `token` and `assets/<uid>` in FOLDER."""

import asyncio
import hashlib
import json
import sqlite3
import sys
from pathlib import Path
from random import SystemRandom
from uuid import UUID, uuid4

from websockets import ClientConnection, WebSocketException, connect

URL, INSTALL_ID, FOLDER = sys.argv[1], sys.argv[2], Path(sys.argv[3])
IDENTITY = {"install_id": INSTALL_ID, "boot_id": str(uuid4()), "node_type": "telescope", "software_version": "minimal"}
FIRST_KEPT = [("instance_uid", str(uuid4())), ("outbox_uid", str(uuid4())), ("last_epoch", 0)]
db = sqlite3.connect(FOLDER / "node.sqlite", isolation_level=None)  # each statement is on the disk when it returns
db.execute("create table if not exists said (seq integer primary key autoincrement, command_id, body, done default 0)")
db.execute("create table if not exists kept (name primary key, value)")
db.executemany("insert or ignore into kept values (?, ?)", FIRST_KEPT)
spoken = {command_id: json.loads(body) for command_id, body in db.execute("select command_id, body from said")}


class Session:
    attempt, most, sent_seq, quiet_s, smallest, at = 0, 0, 0, 25.0, float("inf"), 0.0

    async def send(self, kind: str, **members: object) -> None:
        await self.socket.send(json.dumps({"kind": kind, **members}))

    def say(self, command_id: str, **body: object) -> None:
        spoken[command_id] = body
        db.execute("insert into said (command_id, body) values (?, ?)", (command_id, json.dumps(body)))

    async def run(self, socket: ClientConnection) -> None:
        self.socket, self.calls, kept = socket, {}, dict(db.execute("select * from kept"))
        await self.send("hello", **IDENTITY, **kept, results=list(spoken)[-1000:])
        while True:
            message = json.loads(await asyncio.wait_for(self.socket.recv(), self.quiet_s))
            for frame in message if isinstance(message, list) else [message]:
                own, sent = asyncio.get_running_loop().time() * 1000, frame.get("t_ms", float("-inf"))
                self.smallest, self.at = min(own - sent, self.smallest + (own - self.at) * 200e-6), own
                await self.handle(frame["kind"], frame, own - sent - self.smallest)
            rows = db.execute("select * from said where not done order by seq limit ?", (self.most,)).fetchall()
            for seq, command_id, body, _ in [row for row in rows if row[0] > self.sent_seq]:
                self.sent_seq = seq
                await self.send("publish_command_result", seq=seq, command_id=command_id, **json.loads(body))

    async def handle(self, kind: str, frame: dict, age_ms: float) -> None:
        call = self.calls.get(frame.get("id"))
        if kind == "welcome":
            Session.attempt, self.most, self.quiet_s = 0, frame["limits"]["unacked_frames"], 2.5 * frame["heartbeat_s"]
            db.execute("update kept set value = ? where name = 'last_epoch'", (frame["epoch"],))
        if kind in ("welcome", "ack", "nack"):
            last = frame.get("seq", frame.get("acked_seq"))
            db.execute("update said set done = 1 where seq between ? and ?", (last if kind == "nack" else 0, last))
        elif kind == "ping":
            await self.send("pong", id=frame.get("id"))
        elif kind in ("event_command", "cancel_command"):
            self.command(kind, frame["command_id"], frame, age_ms)
        elif kind == "direct_request":
            task = asyncio.create_task(self.answer(frame, credit := asyncio.Queue(), frame["deadline_ms"] - age_ms))
            self.calls[frame["id"]] = (task, credit)
            task.add_done_callback(lambda _: self.calls.pop(frame["id"]))
        elif kind == "direct_credit" and call:
            call[1].put_nowait(frame["bytes"])
        elif kind == "direct_cancel" and call:
            call[0].cancel()

    def command(self, kind: str, command_id: str, frame: dict, age_ms: float) -> None:
        what = frame.get("command", {}).get("command_type")
        late = what != "mount.stop" and age_ms >= frame.get("deadline_ms", float("inf"))  # a stop is never late
        if kind == "cancel_command":  # one that never came is canceled for good; any other has ended by now
            known = spoken.get(command_id, {"status": "canceled", "canceled": "before_start"})
            self.say(command_id, **{"canceled": "too_late", **known})
        elif command_id in spoken:
            self.say(command_id, **spoken[command_id])  # said again, never run again
        elif late or what not in ("mount.stop", "mount.park"):
            why = "deadline_exceeded" if late else "unknown_command"
            error = {"code": "conflict", "message": f"Refused: {why}.", "details": {"reason": why}}
            self.say(command_id, status="rejected", error=error)
        else:
            self.say(command_id, status="accepted")
            sys.stdout.write(f"{what} {command_id}\n")  # here a real node moves its mount
            self.say(command_id, status="completed")

    async def answer(self, frame: dict, more_credit: asyncio.Queue, left_ms: float) -> None:
        call, credit, at, chunks = frame["id"], frame["credit"], 0, 0
        try:
            async with asyncio.timeout(left_ms / 1000):
                path = {"asset.read": FOLDER / "assets"}[frame["operation"]] / str(UUID(frame["params"]["asset_uid"]))
                content = path.read_bytes()[frame.get("offset", 0) :][: frame.get("length")]
                sha256 = hashlib.sha256(content).hexdigest()
                await self.send("direct_response_start", id=call, content_type="image/fits", total_size=len(content))
                while at < len(content):
                    credit = credit or await more_credit.get()
                    piece = content[at : at + min(credit, 65536)]
                    await self.socket.send(UUID(call).bytes + chunks.to_bytes(4, "big") + piece)
                    credit, at, chunks = credit - len(piece), at + len(piece), chunks + 1
                await self.send("direct_response_end", id=call, chunks=chunks, total_size=at, sha256=sha256)
        except (LookupError, ValueError, OSError) as error:  # the deadline is among them
            await self.send("direct_error", id=call, code="not_found", message=f"Not answered: {error!r}")


async def main() -> None:
    while True:
        try:
            auth = {"Authorization": f"Bearer {(FOLDER / 'token').read_text().strip()}"}
            async with connect(URL, additional_headers=auth, subprotocols=["skynet.node.v1"], compression=None) as ws:
                await Session().run(ws)
        except (OSError, WebSocketException) as error:
            told = getattr(error, "rcvd", None) or getattr(error, "response", None)  # a close frame, or an HTTP answer
            code = getattr(told, "code", None) or getattr(told, "status_code", 0)
            late = code in (401, 403, 404, 426) or 4500 <= code <= 4999
            wait_s = SystemRandom().uniform(*((300, 900) if late else (0, min(30, 2 ** min(Session.attempt, 6) / 2))))
            Session.attempt += 1
            sys.stdout.write(f"{error}: coming back in {wait_s:.1f} s\n")
            await asyncio.sleep(wait_s)


asyncio.run(main())
