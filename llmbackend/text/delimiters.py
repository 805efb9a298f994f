"""Puts untrusted text into a prompt as data: it can neither close nor imitate the tags around it, nor the special tokens
of a chat template, which servers and llama.cpp obey even inside a message's text.
"""

from __future__ import annotations

import re
from unicodedata import category, normalize

_TAG = r"<\s*+/?\s*+(?:passage|conversation|question|document|result|message)s?\b"
_TOKEN = (
    r"<\|"  # <|im_end|>, <|eot_id|>, DeepSeek's <｜User｜>
    r"|<</?\s*sys\s*>>"
    r"|</?\s*(?:s|bos|eos|pad|unk|mask|sep|cls|image|think|thinking|reasoning|system|user|assistant|human|tool\w*"
    r"|function\w*|(?:start|end|begin)_?of_?\w+|im_\w+|fim_\w+|extra_id_\d+|unused\d+)\s*>"
    r"|\[/?\s*(?:inst|sys|system_\w+|available_tools|tools?|tool_\w+|args|call_id|think|img\w*|prefix|suffix|middle"
    r"|bos|eos|pad|unk|mask|sep|cls|gmask|sop)\s*\]"
)
_STRUCTURE = re.compile(f"{_TAG}|{_TOKEN}")
_ODD = re.compile(r"[^\t\n\r -~]")

_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # invisible letters

# Lookalikes that NFKC does not fold.
_LIKE = str.maketrans(
    {
        **dict.fromkeys("‹〈⟨❮❬ᐸ˂≺⧼⦑", "<"),
        **dict.fromkeys("│┃❘∣ǀ⏐❙❚ǁ¦", "|"),
        **dict.fromkeys("⟦〚【〔❲", "["),
    }
    | {
        **dict.fromkeys("›〉⟩❯❭ᐳ˃≻⧽⦒", ">"),
        **dict.fromkeys("⟧〛】〕❳", "]"),
        **dict.fromkeys("▁‗", "_"),
        "⁄": "/",
        "∕": "/",
    }
)


def delimited(tag: str, text: str, **attributes: object) -> str:
    """Return the text as data between `<tag …>` and `</tag>`."""
    told = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<{tag}{told}>\n{as_data(text)}\n</{tag}>"


def as_data(text: str) -> str:
    """Escape the first character of whatever looks like a tag or a special token: `<|im_end|>` becomes `&lt;|im_end|>`."""
    shape, places = _shape(text)
    escaped: list[str] = []
    done = 0
    for match in _STRUCTURE.finditer(shape):
        place = places[match.start()]
        if place < done:
            continue
        escaped += text[done:place], "&lt;" if text[place] == "<" else f"&#{ord(text[place])};"
        done = place + 1
    return "".join([*escaped, text[done:]])


def _shape(text: str) -> tuple[str, range | list[int]]:
    """Return the text as a reader sees it, in plain lower-case letters, and each letter's position in the original.

    Invisible characters are dropped; full-width, small and lookalike ones are folded.
    """
    if not _ODD.search(text):
        return text.lower(), range(len(text))
    letters: list[str] = []
    places: list[int] = []
    for place, letter in enumerate(text):
        if not letter.isascii():
            if category(letter) in ("Cf", "Mn", "Me") or letter in _BLANK:
                continue
            letter = normalize("NFKC", letter.translate(_LIKE)).translate(_LIKE)
        elif not letter.isprintable() and not letter.isspace():
            continue
        for one in letter.lower():
            letters.append(one)
            places.append(place)
    return "".join(letters), places
