"""What a renderer of Markdown or HTML would make of a text: by what a browser might fetch, run or follow."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

RENDERERS = [
    MarkdownIt("commonmark", {"html": True}),
    MarkdownIt("gfm-like", {"html": True, "linkify": True}),
    MarkdownIt("js-default", {"html": True, "linkify": True, "breaks": True, "typographer": True}),
]
RENDERERS[-1].linkify.set({"fuzzy_link": True, "fuzzy_email": True, "fuzzy_ip": True})
HARMLESS = re.compile(
    r"</?(?:p|em|strong|s|code|pre|ul|ol|li|blockquote|h[1-6]|hr|br|table|thead|tbody|tr|th|td)"
    r'(?: (?:class="language-[^"<>]*"|start="[0-9]+"|style="text-align:(?:left|right|center)"))*(?: /)?>'
)


def active(text: str) -> list[str]:
    """Every tag that a renderer makes of a text and that is not known to do nothing."""
    return [tag for one in RENDERERS for tag in re.findall(r"<[^>]*>?", HARMLESS.sub("", one.render(text)))]
