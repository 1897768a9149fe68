"""Neutral text: what it looks like, and that no renderer finds anything in it to do."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag.disarming import Disarmed, disarm
from tests.rendering import active

SOURCE = "See https://docs.example.com/refunds?x=1, README.md, www.example.org/a or write to help@example.com."

WORDS = """
[ ] ( ) ! < > ` `` ~~~ \\ & &lt; &#58; &colon; : // / . @ * ** | { } ^ # $ - _ a 1 \" ' … 。 、 （ 例え ü 💩 http https
HTTPS:// https://evil.com https://docs.example.com/refunds?x=1 www. evil.com www.evil.zz evil.co.uk:80/a?b=c#d
ftp://evil.com //evil.com/x 127.0.0.1 http://127.0.0.1 http://localhost help@example.com a@evil.com mailto:a@evil.com
xmpp:a@b.cd javascript:alert(1) data:text/html,x 例え.jp см.рф 💩.la ![x] [x]: [1] script /a !-- ?php style
"""
SPACED = ("img src=x onerror=alert(1)", "a href=https://evil.com", "[x]: ")
BLANK = " \n\t\r\u00a0\u200b\u200d\u202e\ufeff\u2028\x00\ud800\U000e0041"
PIECES = [*WORDS.split(), *SPACED, *BLANK]


@given(
    text=st.lists(st.sampled_from(PIECES), max_size=14).map("".join), closing=st.sampled_from(["", "\n\n[1]: x", "`"])
)
@settings(max_examples=500)
@example(text="[x](https://docs.example.com/refunds?x=1)", closing="")
@example(text="\\https://docs.example.com/refunds?x=1", closing="`")
def test_no_renderer_finds_anything_to_do(text: str, closing: str) -> None:
    assert active(disarm(text + closing, [SOURCE, text])) == []


@given(text=st.lists(st.sampled_from(PIECES), max_size=14).map("".join), cuts=st.lists(st.integers(0, 60), max_size=5))
@settings(max_examples=300)
def test_it_does_not_matter_how_a_text_is_cut(text: str, cuts: list[int]) -> None:
    disarmed = Disarmed([SOURCE])
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    fed = [disarmed.feed(text[start:end]) for start, end in pairwise(edges)]
    assert "".join(fed) + disarmed.end() == disarm(text, [SOURCE])


@pytest.mark.parametrize(
    "text",
    [
        "Refunds are paid within nine working days. [1][3] Parcels take three. [2]",
        "Ist a < b, gilt 5 > 3; z. B. bei 3.11 und 10:30 Uhr (siehe § 4 Abs. 2).",
        "It costs 12.50 € & more; R&D pays 50 %, e.g. 1/2 of it. C:\\temp, x_y, 2*3*4, #5 and {a: 1}.",
        "返金は九営業日以内に支払われます。[1] 荷物は三日です。[2]",
        "می‌خواهم نامه‌ای بنویسم. [1]",
        "- first\n- second\n\n1. third",
        "👩‍💻 ❤️",
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert disarm(text, []) == text


@pytest.mark.parametrize(
    ("text", "neutral"),
    [
        ("See https://docs.example.com/refunds?x=1.", "See `https://docs.example.com/refunds?x=1`."),
        ("See **https://docs.example.com/refunds?x=1**", "See **`https://docs.example.com/refunds?x=1`**"),
        ("See https://docs.example.com/refunds?x=2 [1]", "See … [1]"),
        ("[here](https://evil.example/?q=secret) [1]", "[here] (…) [1]"),
        ("![](https://evil.example/?q=secret)", "![] (…)"),
        ("[1]: https://evil.example/x", "[1] : …"),
        ("<img src=x onerror=alert(1)>", "< img src=x onerror=alert(1)>"),
        ("<https://evil.example>", "<…>"),
        ("Write to help@example.com, not to help@evil.example.", "Write to `help@example.com`, not to …."),
        ("It is in `README.md` or NOTES.md", "It is in `README.md` or `NOTES.md`"),
        ("```js\nfetch(1)\n```", "'''js\nfetch(1)\n'''"),
        ("~~~mermaid", "~~mermaid"),
        ("https://$x", "https:/ /$x"),
        ("&lt;b&gt; &#60;b", "& lt;b& gt; & #60;b"),
        ("java\u200bscript:alert(1)", "…(1)"),
        ("ab\u202ecd\U000e0041\x1b[2J\x00", "abcd[2J"),
        ("[x](javascript:alert(1))", "[x] (…(1))"),
        ("见https://docs.example.com/refunds?x=1。好", "见`https://docs.example.com/refunds?x=1`。好"),
    ],
)
def test_what_could_be_active_reads_alike_and_is_not(text: str, neutral: str) -> None:
    assert disarm(text, [SOURCE]) == neutral


def test_a_long_text_takes_no_longer_than_its_length() -> None:
    seconds = []
    for part in ("a.", "a@", "//", "x" * 9 + ",", "https://a", "a-", "<", "`", "&a", "](", "~", "\\", "[a.bc/"):
        started = time.process_time()
        disarm(part * (40_000 // len(part)), [])
        seconds.append(time.process_time() - started)
    assert max(seconds) < 2
