"""`triage`: a message's category, its urgency, the reasons, and a suggested answer.

Without a capable model, the category is the class whose example is nearest to the message, and urgency goes by keywords.
"""

from __future__ import annotations

import re
from typing import Any

from ..analysis.extract import find as quoted
from ..analysis.extract import split
from ..errors import InvalidRequest
from ..text.delimiters import as_data
from ..text.sentences import stems
from .run_state import Running
from .shaped_replies import shaped_reply
from .shapes import Triage, TriageInput
from .tooling import find, use

FIXED_PLAN = "a fixed plan, for no model reads here: the class of the nearest example, and urgency by the words that stand for it"

# fmt: off
_URGENT = re.compile(
    r"\b(?:urgent\w*|immediately|asap|at once|right (?:away|now)|emergenc\w+|critical\w*|outage|down|cannot work|can't work|blocked|"
    r"deadline|today|lawyer|legal action|injur\w+|fire|leak\w*|hacked|breach|fraud\w*|stolen|dringend|sofort|notfall)\b", re.I)
_CALM = re.compile(r"\b(?:whenever|no hurry|no rush|just wondering|out of curiosity|some ?day|suggest\w*|feedback|thank\w*|thanks)\b", re.I)
# fmt: on

OF_WORDS = 0.5
"""The weight of the share of an example's words in the message, beside the cosine."""


async def triage(run: Running, given: TriageInput) -> Triage:
    """Sort a message. Raises InvalidRequest if it is empty."""
    message = given.message or (run.request.task if run.request.input is not None else "")
    if not message.strip():
        raise InvalidRequest("message: it is empty, so there is nothing to sort")
    if run.services.chat.abstracts:
        told = await _by_model(run, given, message)
    else:
        run.notes.append(FIXED_PLAN)
        told = await _by_examples(run, given, message)
    run.so_far = lambda: Triage(**told, answer="", found=False)
    answer, found = "", False
    if await run.readable():
        asked = " ".join(one.text for one in split(message) if one.text.endswith("?")) or message
        outcome = await use(run, {"query": find("query")}, "query", {"question": asked[:4000]})
        if outcome.error is not None:
            run.notes.append(f"no answer is suggested: {outcome.error}")
        elif outcome.value["found"]:
            answer, found = outcome.value["answer"], True
    return Triage(**told, answer=answer, found=found)


async def _by_examples(run: Running, given: TriageInput, message: str) -> dict[str, Any]:
    async with run.step("nearest example") as node:
        texts = [message, *(f"{one.name}: {one.example}" for one in given.classes)]
        with await run.permitted(("chat",), models=[("embedding", None)]):
            vectors = (await run.services.embedder.embed(texts, too_long="truncate")).values
        said = stems(message)
        scores = []
        for one, vector in zip(given.classes, vectors[1:], strict=True):
            words = stems(f"{one.name} {one.example}")
            scores.append(float(vector @ vectors[0]) + OF_WORDS * len(said & words) / max(1, len(words)))
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        best = given.classes[order[0]]
        node.told.output = best.name
    async with run.step("urgency") as node:
        urgent, calm = _URGENT.findall(message), _CALM.findall(message)
        urgency = "high" if urgent else "low" if calm else "normal"
        node.told.output = urgency
    reasons = _reasons(message, best.example, [*urgent, *calm])
    ahead = scores[order[0]] - scores[order[1]]
    return {
        "category": best.name,
        "certainty": round(max(0.0, min(1.0, ahead / max(1e-9, abs(scores[order[0]])))), 3),
        "urgency": urgency,
        "reasons": reasons,
    }


def _reasons(message: str, example: str, words: list[str]) -> list[str]:
    """Up to three sentences of the message: the one most like the example, and those with the deciding words."""
    sentences = [one.text for one in split(message)] or [message.strip()]
    told = [one for one in sentences if any(word.lower() in one.lower() for word in words)]
    like = stems(example)
    nearest = max(sentences, key=lambda one: len(stems(one) & like))
    return list(dict.fromkeys([nearest, *told]))[:3]


async def _by_model(run: Running, given: TriageInput, message: str) -> dict[str, Any]:
    system = await run.prompt("triage")
    classes = "\n".join(f"- {one.name}, such as: {as_data(one.example)}" for one in given.classes)
    schema = {
        "type": "object",
        "properties": {
            "category": {"enum": [one.name for one in given.classes]},
            "certainty": {"type": "number", "minimum": 0, "maximum": 1},
            "urgency": {"enum": ["low", "normal", "high"]},
            "reasons": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["category", "certainty", "urgency", "reasons"],
        "additionalProperties": False,
    }
    text = f"Classes:\n{classes}\n\n<message>\n{as_data(message)}\n</message>"
    told = await shaped_reply(run, system, text, schema, "sort")
    stand = [one for one in told["reasons"] if quoted(one.strip("\"' "), message)]
    if len(stand) < len(told["reasons"]):
        run.notes.append("reasons that are not in the message are left out")
    return {**told, "reasons": stand or _reasons(message, "", [])}
