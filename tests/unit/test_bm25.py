"""BM25 vectors: words, inflections and compounds that must meet, in the languages they are made for."""

from __future__ import annotations

import pytest

from llmbackend import Conflict
from llmbackend.engines import bm25

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
    ("किताब", "किताब मेज़ पर है", "कतब कुता बकरी का ताला बंद कीत बत"),
    ("मेज", "किताब मेज़ पर है", "किताब कुर्सी पर है"),
    ("हिन्दी", "हिंदी की कक्षा", "अंग्रेज़ी की कक्षा"),
    ("क़लम", "वह कलम", "वह कमल"),
    ("বইটি", "বইটি টেবিলে", "বাড়ি টেবিলে"),
    ("புத்தகம்", "புத்தகம் மேசை மேல்", "பதகம மசை மல"),
    ("ಪುಸ್ತಕ", "ಪುಸ್ತಕ ಮೇಜಿನ ಮೇಲೆ", "ಪಸತಕ ಮಜನ ಮಲ"),
    ("നിന്ന്", "അവൻ നിന്ന്", "അവൾ വന്നു"),
    ("അവന്", "അവൻ നിന്ന്", "അവൾ വന്നു"),
    ("แมว", "ผมเห็นแมวที่บ้าน", "ผมเห็นหมาที่บ้าน"),
    ("ກາເຟ", "ຂ້ອຍດື່ມກາເຟ", "ຂ້ອຍດື່ມນ້ຳ"),
    ("ខ្មែរ", "ភាសាខ្មែរ", "ភាសាថៃ"),
    ("မြန်မာ", "မြန်မာစာ", "ထိုင်းစာ"),
    ("བོད་ཡིག", "བོད་ཡིག་སློབ", "དབྱིན་ཡིག་སློབ"),
    ("שלום", "שָׁלוֹם עולם", "תודה עולם"),
    ("שָׁלוֹם", "שלום עולם", "תודה עולם"),
    ('צה"ל', "צה״ל והעם", "עם ישראל"),
    ("ספר", "בית־ספר חדש", "בית־חולים חדש"),
    ("كتاب", "كتـــاب جديد", "قلم جديد"),
    ("كتاب", "کتاب جدید", "قلم جدید"),
    ("میخواهم", "می‌خواهم بروم", "نمیدانم بروم"),
    ("istanbul", "İstanbul ofisi", "Ankara ofisi"),
    ("İSTANBUL", "istanbul ofisi", "ankara ofisi"),
    ("IĞDIR", "ığdır ofisi", "ankara ofisi"),
    ("αθηνα", "στην Αθήνα", "στην Σπάρτη"),
    ("ΑΘΉΝΑ", "στην αθηνα", "στην σπαρτη"),
    ("ещё", "еще раз", "опять раз"),
    ("cafe", "le café ferme", "le thé ferme"),
    ("café", "le café ferme", "le cafe ferme"),
    ("Lodz", "do Łodzi, Łódź", "do Gdańska"),
    ("smorrebrod", "Smørrebrød her", "Kaffe her"),
    ("C++", "in C++ written", "in C written"),
    ("C", "in C written", "in C++ written"),
    ("C#", "in C# written", "in C++ or F# written"),
    (".NET", "made with .NET here", "net profit here"),
    ("node.js", "we use node.js now", "node and js now"),
    ("nodejs", "we use node.js now", "a node now"),
    ("@user", "ask @user for it", "ask a user for it"),
    ("AT&T", "paid by AT&T", "paid at t"),
    ("R&D", "the R&D team", "the r team"),
    ("parse_json2", "call parse_json2 first", "call parse or json first"),
    ("json", "call parse_json2 first", "call parse_xml2 first"),
    ("parse_json2", "call parseJson2 first", "call parseXml2 first"),
    ("user name", "getUserName()", "getUserAge()"),
    ("http request", "class XMLHttpRequest", "class XMLSocket"),
    ("xmlhttprequest", "class XMLHttpRequest", "class XMLSocket"),
    ("RFC 2119", "see RFC2119", "see RFC2822"),
    ("iphone 15", "my iPhone15", "my iPhone14"),
    ("email", "by e-mail", "by mail"),
    ("e-mail", "by email", "by fax"),
    ("cooperate", "they co-operate", "they operate"),
    ("dont", "I don’t know", "I know"),
    ("oneil", "Mr O’Neil", "Mr Neil"),
    ("eau", "boire de l’eau", "boire du vin"),
    ("cooperate", "they co\u00adop\u00aderate", "they go"),
    ("1000", "it costs 1,000 euros", "it costs 100 euros"),
    ("1000", "es kostet 1.000 Euro", "es kostet 100 Euro"),
    ("1000", "il coûte 1\u202f000 euros", "il coûte 1 euro"),
    ("1 000", "it costs 1000", "it costs 100"),
    ("12,5", "a size of 12.5", "a size of 125"),
    ("125", "a size of 125", "a size of 12.5"),
    ("1.2.3", "release v1.2.3", "release 3.2.1"),
    ("106", "about 106 of them", "about 10⁶ of them"),
    ("14", "for 14¹ days", "for 141 days"),
    ("m2", "20 m² of floor", "20 m of floor"),
    ("CO2", "of CO₂ a year", "of CO a year"),
    ("finance", "the ﬁnance team", "the sales team"),
    ("カナ", "ｶﾅ", "ひらがな"),
    ("123", "١٢٣ صفحة", "٣٢١ صفحة"),
    ("AB-1234/5", "part AB-1234/5", "part AB-1234/6, 5 of them"),
    ("ann.lee@example.com", "write to ann.lee@example.com", "write to lee.ann@example.org"),
    ("example.com", "write to ann.lee@example.com", "an example: com"),
    ("🍕", "🍕 on Friday", "🍣 on Friday"),
    ("IV", "Kapitel Ⅳ", "Kapitel Ⅴ"),
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


ONLY = [
    ("किताब", "कतब कुता बकरी का ताला बंद कीत बत"),
    ("C++", "in C and in C#"),
    ("C", "in C++ and in C#"),
    ("10", "about 106"),
    ("15", "a size of 1.5"),
    ("end", "the e nd"),
]


@pytest.mark.parametrize(("query", "other"), ONLY, ids=[query for query, _ in ONLY])
def test_what_is_another_word_is_not_found(query: str, other: str) -> None:
    assert _score(query, other) == 0


def test_collections_of_the_first_words_keep_them() -> None:
    first = bm25.encoder("bm25-multilingual")
    code = first.query("E-4711").indices
    assert set(code) <= set(first.document("Fehler E-4711 der Pumpe").indices)
    # As they were stored then: numbers without any sign, single letters between marks.
    assert set(first.query("1.5").indices) == set(first.document("1.5 15").indices)
    assert set(first.query("किताब").indices) == set(first.document("क त ब").indices)


def test_an_unknown_model_is_refused_with_the_repair() -> None:
    with pytest.raises(Conflict, match="reindex_collection"):
        bm25.encoder("bm25-of-tomorrow")


def test_the_encoder_of_old_collections_is_still_there() -> None:
    old = bm25.encoder(bm25.EnglishOfEdge.NAME)
    assert set(old.query("running houses").indices) == set(old.document("house run").indices)
