"""BM25 vectors: words, inflections and compounds that must meet, in the languages they are made for."""

from __future__ import annotations

import pytest

from llmbackend import Conflict
from llmbackend.knowledge.engines import bm25

ENCODER = bm25.encoder(bm25.NAME)


def _score(query: str, document: str) -> float:
    """As an engine scores it, all terms equally rare."""
    asked = dict(zip(*ENCODER.query(query), strict=True))
    there = dict(zip(*ENCODER.document(document), strict=True))
    return sum(weight * there[term] for term, weight in asked.items() if term in there)


# Query, a text that it should find, and one that it should not prefer to it.
MEET = [
    ("resetting routers", "Press to reset the router.", "Press to open the window."),
    ("ROUTER", "The router's ports", "The printer's ports"),
    ("café", "CAFÉ", "tea"),
    ("Häuser", "Das Haus ist alt und die Tür ist neu.", "Die Maus ist alt und die Tür ist neu."),
    ("Kündigungen", "Die Kündigung ist nicht wirksam.", "Die Buchung ist nicht wirksam."),
    ("Strasse", "Die Straße ist nass.", "Die Wiese ist nass."),
    ("Urlaub", "Der Urlaubsanspruch ist im Vertrag geregelt.", "Der Anspruch ist im Vertrag geregelt."),
    (
        "Urlaubsanspruch",
        "Der Anspruch auf Urlaub verfällt nicht.",
        "Der Gewinn aus der Lotterie verfällt nicht.",
    ),
    ("Kündigungsfrist", "Kündigungsfristen: vier Wochen", "Vier Wochen"),
    ("What is ERR-07-12?", "ERR-07-12: the pump", "ERR-12-07: the pump"),
    ("E-4711", "Fehler E4711 der Pumpe", "Fehler E 47 der Pumpe 11"),
    ("INV_2024/17", "Invoice INV_2024/17 of May", "Invoice INV_2024/71 of 17 May"),
    ("valve AB 12.34", "AB 12.34 is closed", "AB 34.12 is closed"),
    ("1,234.56 euros", "1.234,56 Euro", "1.56,234 Euro"),
    ("الموجه", "أعد ضبط المُوَجِّه", "أعد ضبط الطابعة"),
    ("موجه", "الموجّه الجديد", "الهاتف الجديد"),
    ("كتاب", "والكتاب على الطاولة", "والقلم على الطاولة"),
    ("الموظفين", "حقوق الموظفون", "حقوق الزوار"),
    ("重置路由器", "请按住按钮十秒钟以重置路由器。", "请按住按钮十秒钟以打开窗户。"),
    ("路由器怎么重置", "重置路由器", "打印机"),
    ("茶", "他喝茶", "他喝水"),
    ("ルーター", "ルーターをリセットする", "ドアを開ける"),
    ("라우터", "라우터를 재설정하십시오", "문을 여십시오"),
    ("ＲＦＣ２１１９", "see RFC2119", "see RFC2822"),
]


@pytest.mark.parametrize(("query", "better", "worse"), MEET, ids=[query for query, _, _ in MEET])
def test_a_query_prefers_what_has_its_words(query: str, better: str, worse: str) -> None:
    assert _score(query, better) > _score(query, worse)
    assert _score(query, better) > 0


def test_function_words_count_only_where_there_is_nothing_else() -> None:
    assert _score("the router", "the the the window") == 0
    assert len(ENCODER.query("the").indices) > 0


def test_a_term_that_comes_more_often_weighs_more_but_less_each_time() -> None:
    once, twice, thrice = (_score("router", " ".join(["router"] * times)) for times in (1, 2, 3))
    assert 0 < thrice - twice < twice - once < once


def test_the_same_word_weighs_less_in_a_longer_text() -> None:
    assert _score("router", "router " + "window " * 300) < _score("router", "router window")


@pytest.mark.parametrize("text", ["", " \n", "…!?", "\ud800", "\u064b", "a\x00b"], ids=ascii)
def test_odd_texts_have_vectors_too(text: str) -> None:
    for made in (ENCODER.document(text), ENCODER.query(text)):
        assert len(made.indices) == len(set(made.indices)) == len(made.values)
        assert all(0 <= index < 2**32 for index in made.indices)


def test_an_unknown_model_is_refused_with_the_repair() -> None:
    with pytest.raises(Conflict, match="reindex_collection"):
        bm25.encoder("bm25-of-tomorrow")


def test_the_encoder_of_old_collections_is_still_there() -> None:
    old = bm25.encoder(bm25.EnglishOfEdge.NAME)
    assert set(old.query("running houses").indices) == set(old.document("house run").indices)
