"""A gateway of canned answers on a real loopback socket, for commands that only look at what comes back."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 5.0


@dataclass
class Answer:
    """What is sent back. `promised` is a Content-Length that is not kept: the connection ends early. `after` says how
    many requests must have come before it is sent.
    """

    status: int
    content: bytes
    content_type: str = "application/json"
    promised: int | None = None
    after: int = 0


def as_json(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode())


@dataclass
class FakeGateway:
    """Answers by method and path, and keeps what it was asked. Several answers to one path come in turn."""

    url: str = ""
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    came: threading.Condition = field(default_factory=threading.Condition)

    def on(self, request: str, *answers: Answer) -> None:
        self.answers[request] = list(answers)

    def next_answer(self, request: str) -> Answer:
        answers = self.answers.get(request)
        if not answers:
            return as_json({"detail": f"Nothing at {request}.", "code": "not_found"}, 404)
        return answers.pop(0) if len(answers) > 1 else answers[0]


@contextmanager
def fake_gateway() -> Iterator[FakeGateway]:
    fake = FakeGateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            fake.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer()

        def _answer(self) -> None:
            with fake.came:
                fake.tokens.append(self.headers["Authorization"])
                fake.asked.append(f"{self.command} {self.path}")
                answer = fake.next_answer(f"{self.command} {self.path.partition('?')[0]}")
                fake.came.notify_all()
                # What never comes is for the test to see, in what was asked and how it ended.
                if not fake.came.wait_for(lambda: len(fake.asked) >= answer.after, PATIENCE_S):
                    answer = as_json({"detail": "What was waited for has not come.", "code": "internal"}, 500)
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.content_type)
            self.send_header("Content-Length", str(answer.promised or len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            """Silence: the test's output is the command's."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
