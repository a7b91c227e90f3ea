"""How a payload or a result lies in the columns of a job: small bytes in the row, large ones in a blob."""

import json

from broker.store.base import Body


def metadata_text(body: Body) -> str:
    """The pairs as one text; "" for none, which is what most jobs have."""
    return json.dumps(body.metadata, ensure_ascii=False, separators=(",", ":")) if body.metadata else ""


def body_of(content: bytes | None, content_type: str, metadata: str = "") -> Body | None:
    """The body of these columns; None if there is none. `content` is that of the blob where the row has none."""
    if content is None:
        return None
    pairs = tuple((name, value) for name, value in json.loads(metadata)) if metadata else ()
    return Body(content, content_type, pairs)
