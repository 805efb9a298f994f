"""Codes, numbers and names of a question, in any language, and whether passages have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.answers import full_names
from llmbackend.answers.question import NAMES, Question, telling

TEXTS = {
    "English": ("What does E-03's repair cost?", "Unit E-03 costs 90 euros.", "Unit E-04 costs 80 euros."),
    "Turkish": ("E-03'ün ücreti nedir?", "E-03 ünitesi 90 liradır.", "E-04 ünitesi 80 liradır."),
    "French": ("Quand l'E-03 a-t-il été réparé ?", "L'unité E-03 le 3 mai.", "L'unité E-04 le 4 mai."),
    "Chinese": ("E-03号合同的金额是多少？", "签署了E-03号合同。", "签署了E-04号合同。"),
    "Chinese, a number": ("2296/588号合同的金额是多少？", "签署了2296/588号合同。", "签署了2297/588号合同。"),
    "Japanese": ("契約E-03はどの部屋ですか。", "契約E03に署名した。", "契約E04に署名した。"),
    "Korean": ("E-03의 가격은 얼마입니까?", "펌프 E-03은 90원입니다.", "펌프 E-04는 80원입니다."),
    "German": ("Wie hoch ist 2024/915?", "2024/915 ist hoch.", "2024/916 und 2023/915 sind hoch."),
    "Russian": ("Сколько стоит насос № Е-0317?", "Насос Е-0317 стоит 90.", "Насос Е-0318 стоит 80."),
    "Arabic": ("كم ثمن المضخة E-03؟", "ثمن المضخة E-03 تسعون.", "ثمن المضخة E-04 ثمانون."),
}


@pytest.mark.parametrize(("question", "right", "wrong"), TEXTS.values(), ids=list(TEXTS))
def test_a_code_is_told_from_another_one(question: str, right: str, wrong: str) -> None:
    exact = Question(question, [right, wrong])
    assert exact.missing == []
    assert exact.exact(right) > exact.exact(wrong)
    assert Question(question, [wrong, wrong]).missing != []


def test_what_an_apostrophe_joins_to_a_name_is_its_own() -> None:
    exact = Question("Where does Mr O'Neil live?", ["O'Neil lives here.", "O is a letter."])
    assert exact.exact("O'Neil lives here.") > exact.exact("O is a letter.")


FULL_NAMES = {
    "plain": ("Where does Ann Lee work?", "Ann Lee works here."),
    "possessive": ("Which is Ann Lee's office?", "Ann Lee works here."),
    "initials": ("Where does Ann S. Lee work?", "Ann S. Lee works here."),
    "more names": ("Where does Ann Lee work?", "Ann Sofie Lee works here."),
    "particles": ("Wo arbeitet Ann Lee?", "Ann van der Lee ist im Lager."),
    "turned": ("Where does Ann Lee work?", "LEE, ANN: office 3."),
    "with a hyphen": ("Où travaille Ann-Marie Lee ?", "Ann-Marie Lee travaille ici."),
    "Cyrillic": ("Где работает Анна Ли?", "Анна Ли работает здесь."),
}


@pytest.mark.parametrize(("question", "right"), FULL_NAMES.values(), ids=list(FULL_NAMES))
def test_a_full_name_is_told_from_one_of_the_same_words(question: str, right: str) -> None:
    first = next(name for name in ("Ann-Marie", "Анна", "Ann") if name in question)
    last = "Ли" if first == "Анна" else "Lee"
    others = [f"{first} Fox is here. Bo {last} is not.", f"Bo {last} is here."]
    assert Question(question, [right, *others]).missing == []
    assert Question(question, [right, *others]).exact(right) > Question(question, [right, *others]).exact(
        others[0]
    )
    assert Question(question, others).missing != []


def test_a_text_that_comes_to_a_name_after_another_is_about_the_other() -> None:
    own, other = "Ann Lee has a car.", "Bo Fox has a car and reports to Ann Lee."
    asked = Question("Which car does Ann Lee have?", [own, other])
    assert asked.coded(own) == 0 > asked.coded(other)
    assert Question("Which car does Ann Lee have?", [other]).coded(other) == 0


@pytest.mark.parametrize(
    "question", [" ".join(f"A{n} B{n}" for n in range(200)), "Ann Lee or " * 200, "Ann " * 400]
)
def test_many_names_are_no_more_work_than_a_few(question: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Sequence[str]] = []
    pattern = full_names.pattern

    def counted(name: Sequence[str]) -> Any:
        looked.append(name)
        return pattern(name)

    monkeypatch.setattr(full_names, "pattern", counted)
    Question(question, ["Bo Fox is here."])
    assert len(looked) <= 15 * NAMES


@pytest.mark.parametrize(
    ("question", "documents"),
    [
        ("How long does Unit E-03 run?", ["Unit E-03 runs for 90 days.", "Unit E-04 runs for 80 days."]),
        ("Wie lange läuft Pumpe E-03?", ["Pumpe E-03 läuft 90 Tage.", "Pumpe E-04 läuft 80 Tage."]),
    ],
)
def test_no_question_is_compared_with_texts_on_the_event_loop(
    question: str, documents: list[str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """With the judge, which reads English, and without. A question may have thousands of codes, and a collection has texts."""
    where: dict[str, set[bool]] = {}

    def is_on_a_loop() -> bool:
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is not None
        return False

    def noted(name: str, was: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            where.setdefault(name, set()).add(is_on_a_loop())
            return was(*given)

        return call

    for name in ("__init__", "_share"):
        monkeypatch.setattr(Question, name, noted(name, getattr(Question, name)))
    client: LLMBackendClient = request.getfixturevalue("_local")
    client.rag_ingest(documents, "compared")
    try:
        client.rag_query(question, "compared")
    finally:
        client.delete_collection("compared")
    assert where == {"__init__": {False}, "_share": {False}}


def test_a_word_that_begins_a_second_sentence_is_no_name() -> None:
    asked = Question("The pump of Bremen is slow. What helps? Please tell WHO.", ["The pump is slow."])
    assert asked.unknown == ["Bremen", "WHO"]


def test_german_nouns_that_follow_each_other_are_no_name() -> None:
    passages = [
        "Betriebsvereinbarung Homeoffice\n\nMitarbeitende dürfen bis zu drei Tage pro Woche zu Hause arbeiten.",
        "Der Antrag ist bei Frau Jäger zu stellen.",
    ]
    assert Question("Wie viele Tage Homeoffice sind erlaubt?", passages).missing == []
    assert Question("Was macht Frau Homeoffice?", passages).missing == ["Frau Homeoffice"]


def test_what_is_asked_for_is_told_in_english_and_german() -> None:
    assert telling(["when", "does", "the", "war", "museum", "open"]) == ["war", "museum", "open"]
    assert telling(["wann", "war", "das", "museum", "offen"]) == ["museum", "offen"]
    assert telling(["was", "ist", "das"]) == []
