"""The JSON body of a refusal that is given before any router has seen the request."""

import json


def refusal_body(detail: str, *, code: str = "invalid", retry: str = "never") -> bytes:
    """Contract §3: nothing was sent anywhere. Unless told otherwise, the same request will never be taken."""
    return json.dumps(
        {
            "detail": detail,
            "code": code,
            "outcome": "not_sent",
            "retry": retry,
            "hop": "gateway",
            "reached": None,
            "requestId": None,
        }
    ).encode()
