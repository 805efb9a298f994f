"""Makes text safe to show: removes characters that a terminal or a page would act on."""

from __future__ import annotations

# Control characters, which begin escape sequences, and marks that change the direction of text.
_UNSHOWN = {
    code: None
    for code in (
        *(code for code in range(0x20) if chr(code) not in "\t\n"),
        *range(0x7F, 0xA0),
        0x61C,
        0x200E,
        0x200F,
        *range(0x202A, 0x202F),
        *range(0x2066, 0x206A),
    )
}


def visible(text: str) -> str:
    return text.translate(_UNSHOWN)
