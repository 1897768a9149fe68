"""E-mail: the headers that people read, the body as text, and attachments that are text themselves."""

from __future__ import annotations

import email
from email.errors import HeaderParseError
from email.header import decode_header
from typing import TYPE_CHECKING, Any

from rag import limits as limiting
from rag.errors import DocumentError
from rag.parsing import decoding, markup, outline, unwrapping
from rag.parsing.outline import Block

if TYPE_CHECKING:
    from collections.abc import Iterable
    from email.message import Message

    from rag.limits import Limits
    from rag.types import Section

_HEADERS = ("Subject", "From", "To", "Cc", "Date")


def read(data: bytes, limits: Limits) -> tuple[str | None, list[Section]]:
    """The subject, and sections: headers with the body, then each text attachment under its file name."""
    message = email.message_from_bytes(decoding.decode(data).encode() if _is_wide(data) else data)
    limiting.refuse_depth([message], _within, limits)
    if message.get_content_type() in {"multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"}:
        raise DocumentError("ENCRYPTED", "The message's body is encrypted; save it decrypted and upload that.")
    headers = "\n".join(f"{name}: {value}" for name in _HEADERS if (value := _header(message, name)))
    bodies, attachments = _parts(message)
    blocks = [Block(headers), *_body(bodies), *(block for part in attachments for block in _attachment(part))]
    return _header(message, "Subject"), outline.sections(blocks)


def _is_wide(data: bytes) -> bool:
    return data[:2] in (b"\xff\xfe", b"\xfe\xff") or data[:64].count(0) > 8


def _within(part: Message) -> Iterable[Message]:
    payload: Any = part.get_payload()
    return payload if part.is_multipart() else ()


def _parts(message: Message) -> tuple[list[Message], list[Message]]:
    leaves = [part for part in message.walk() if not part.is_multipart()]
    attachments = [part for part in leaves if part.get_filename() or part.get_content_disposition() == "attachment"]
    return [part for part in leaves if part not in attachments], attachments


def _body(parts: list[Message]) -> list[Block]:
    """Plain text where the message has it, else its HTML."""
    plain = [_text(part) for part in parts if part.get_content_type() == "text/plain"]
    if any(text.strip() for text in plain):
        return [Block(unwrapping.unwrap_text(text)) for text in plain]
    pages = [_text(part) for part in parts if part.get_content_type() == "text/html"]
    return [block for page in pages for block in markup.read_text(page)[1]]


def _attachment(part: Message) -> list[Block]:
    name = " ".join(_decoded(part.get_filename() or "attachment").split())
    listed = Block(f"Attachment: {name}", compact=True)
    return [listed, Block(_text(part))] if part.get_content_type() == "text/plain" else [listed]


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    return decoding.decode(payload, part.get_content_charset()) if isinstance(payload, bytes) else ""


def _header(message: Message, name: str) -> str | None:
    try:
        return " ".join(_decoded(str(message[name])).split()) if message[name] else None
    except (HeaderParseError, ValueError):
        return None


def _decoded(header: str) -> str:
    pieces = decode_header(header)
    return "".join(piece if isinstance(piece, str) else decoding.decode(piece, charset) for piece, charset in pieces)
