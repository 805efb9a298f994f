"""Foreign text in a prompt, as data between tags that it cannot end or imitate."""

from __future__ import annotations

import re

_TAG = re.compile(r"<(?=\s*/?\s*(?:passage|conversation|question)\b)", re.IGNORECASE)


def delimited(tag: str, text: str, **attributes: object) -> str:
    """The text between `<tag …>` and `</tag>`; what looks like one of our tags in it is escaped."""
    told = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<{tag}{told}>\n{_TAG.sub('&lt;', text)}\n</{tag}>"
