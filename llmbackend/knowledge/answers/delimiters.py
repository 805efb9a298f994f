"""Foreign text in a prompt, as data: it can neither end nor imitate the tags around it, nor a chat template's tokens.

Servers and llama.cpp read such tokens in a message's text as if the template had written them.
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

_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters that do not show

# What looks like one of these, and is not the same by NFKC.
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
    """The text between `<tag …>` and `</tag>`, as data."""
    told = "".join(f' {name}="{value}"' for name, value in attributes.items())
    return f"<{tag}{told}>\n{as_data(text)}\n</{tag}>"


def as_data(text: str) -> str:
    """The text with the first character of whatever looks like structure escaped: `<|im_end|>` is `&lt;|im_end|>`."""
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
    """What the text looks like in plain lower-case letters, and where in it each of these stands.

    Without characters that do not show, and with wide, small and similar ones as those that they look like.
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
