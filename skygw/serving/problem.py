"""The JSON body of a refusal that is given before any router has seen the request."""

import json


def refusal_body(detail: str, *, code: str = "invalid") -> bytes:
    """Contract §3: nothing was sent anywhere, and the same request will never be taken."""
    return json.dumps(
        {
            "detail": detail,
            "code": code,
            "outcome": "not_sent",
            "retry": "never",
            "hop": "gateway",
            "reached": None,
            "requestId": None,
        }
    ).encode()
