"""Answers without a chat server: stretches of the documents, whole enough to be understood, and what is not there."""

from __future__ import annotations

import re

import pytest

from llmbackend import Answer, LLMBackendClient

FILLER = [
    "The harbour was dredged in spring. Two new cranes stand on the northern quay.",
    "The library opens at ten. Readers return their books at the counter.",
    "Bread is baked at four in the morning. The ovens are cleaned on Sundays.",
]
LIST = """# Moving in

New tenants are welcomed by the caretaker. Please bring these papers to the handover:

- the signed lease
- an identity card
- proof of the deposit

The handover takes an hour.
"""
STEPS = """# Coffee machine

The machine stands in the kitchen.

1. Fill the tank with cold water.
2. Put a capsule into the holder.
3. Close the lever.
4. Press the large button.

Clean it on Fridays.
"""
TABLE = (
    "# Parcels\n\nWhat a parcel costs depends on its weight.\n\n| Weight | Price |\n|---|---|\n"
    + "".join(
        f"| {kilos} to {kilos + 1} kilograms, with insurance and a receipt | {3 + kilos}.40 euros |\n"
        for kilos in range(1, 21)
    )
)
COLON = """# Lost property

The office of lost property is reached by telephone at:

0800 555 0199

It is closed in August.
"""
CODE = """# Counters

A counter is read by its number:

```python
with Depot() as depot:
    print(depot.counters[7].value)
```

It is never negative.
"""
TITLED = """Opening hours of the pool

The pool is open from seven to nine in the evening.
Children swim free of charge on Wednesdays.
"""


def ask(client: LLMBackendClient, collection: str, text: str, question: str) -> Answer:
    client.rag_ingest([{"id": "it.md", "text": text}, *FILLER], collection)
    answer = client.rag_query(question, collection)
    stream = client.rag_query(question, collection, stream=True)
    assert "".join(stream) == stream.answer == answer
    return answer


def test_an_answer_is_told_to_be_the_documents_own_words(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, TITLED, "When is the pool open?")
    assert answer.startswith("In the documents' own words:\n\n")
    assert answer.model == "quotes"
    assert "larger chat model" in answer._repr_html_()
    assert (answer.found, answer.citations[0]) == (True, 1)
    stretch = re.split(r" \[\d+\]", answer.removeprefix("In the documents' own words:"))[0]
    assert " ".join(stretch.split()) in " ".join(answer.sources[0].text.split())


def test_a_list_is_told_whole_with_what_announces_it(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, LIST, "Which papers do tenants bring to the handover?")
    told = "to the handover:\n- the signed lease\n- an identity card\n- proof of the deposit"
    assert told in answer


def test_steps_are_told_from_the_first_one(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, STEPS, "How do I put a capsule into the coffee machine?")
    assert (
        "1. Fill the tank with cold water.\n2. Put a capsule into the holder.\n3. Close the lever.\n4. Press"
        in answer
    )


def test_a_row_of_a_long_table_is_told_with_its_head(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, TABLE, "What is the price of a parcel of 17 to 18 kilograms?")
    assert "| Weight | Price |\n|---|---|\n" in answer
    assert "| 17 to 18 kilograms, with insurance and a receipt | 20.40 euros |" in answer
    assert len(answer.split()) <= 160


def test_what_comes_after_a_colon_is_told_with_it(client: LLMBackendClient, collection: str) -> None:
    answer = ask(
        client, collection, COLON, "At which telephone number is the office of lost property reached?"
    )
    assert "by telephone at:\n\n0800 555 0199" in answer


def test_code_is_told_with_its_lines_and_what_announces_it(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, CODE, "How do I read a counter?")
    code = "```\nwith Depot() as depot:\n    print(depot.counters(7).value)\n```\n"  # [7] could pass for a citation
    assert f"A counter is read by its number:\n\n{code}" in answer
    assert (answer.citations[0], 7 in answer.citations) == (1, False)


def test_a_heading_alone_is_no_answer(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, TITLED, "Opening hours of the pool?")
    assert "from seven to nine" in answer
    assert answer.sources[0].quote != "Opening hours of the pool"


def test_nothing_is_told_twice(client: LLMBackendClient, collection: str) -> None:
    said = "The ferry to the island leaves at half past six."
    texts = [f"{said} {other}" for other in ("Tickets are sold on board.", "Dogs travel free on it.")]
    client.rag_ingest([*texts, *FILLER], collection)
    assert client.rag_query("When does the ferry to the island leave?", collection).count(said) == 1


def test_the_longest_answer_has_a_hundred_and_sixty_words(client: LLMBackendClient, collection: str) -> None:
    endless = "the ferry leaves and " * 150
    client.rag_ingest(
        [f"At half past six {endless}returns.", f"On Sundays {endless}rests.", *FILLER],
        collection,
        chunk_size=1000,
    )
    answer = client.rag_query("When does the ferry leave?", collection)
    assert 20 < len(answer.split()) <= 160


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("At what hour does the bakery start?", True),
        ("Where do I give back what I borrowed from the library?", True),
        ("Who is the mayor of Paris?", False),
        ("How do I apply for a fishing licence?", False),
    ],
)
def test_found_is_by_evidence(client: LLMBackendClient, collection: str, question: str, found: bool) -> None:
    client.rag_ingest(FILLER, collection)
    answer = client.rag_query(question, collection, explain=True)
    assert answer.found == found
    explanation = answer.explanation
    assert explanation is not None
    assert (explanation.fit >= explanation.bar) == found
    assert f"{explanation.bar:.2f}" in repr(explanation)
    if not found:
        assert "nothing certain" in answer
        assert "(source 1)" in answer, "the closest passages are shown, and cited by none"
        assert answer.citations == []


@pytest.mark.parametrize(
    ("question", "found"),
    [
        ("Where are the keys of the car?", True),
        ("What do visitors wear in the building?", True),
        ("Which colour is the company car?", False),
        ("May guests bring a dog into the building?", False),
    ],
)
def test_a_detail_that_is_missing_is_told_from_one_in_other_words(
    client: LLMBackendClient, collection: str, question: str, found: bool
) -> None:
    """All ask about the very thing that a passage is about."""
    texts = [
        "The company car is parked in the yard. Its key hangs in the office. Trips are written into the log book.",
        "Guests are met at the gate. They wear a badge in the building, and hand it back when they leave.",
        "The canteen serves lunch from noon. Meals are paid by card.",
    ]
    client.rag_ingest(texts, collection)
    assert client.rag_query(question, collection).found == found


def test_where_nothing_is_certain_more_is_shown(client: LLMBackendClient, collection: str) -> None:
    rules = ("dogs are on a lead", "visitors sign a list", "smoking is not allowed", "bicycles stay outside")
    client.rag_ingest(
        [f"In the hall, {rule}. " + 30 * f"That {rule} is a rule. " for rule in rules], collection
    )
    answer = client.rag_query("Which film is shown in the hall tonight?", collection)
    assert not answer.found
    assert answer.count("(source ") == 3
    assert len(answer.split()) <= 160


def test_who_asks_with_a_code_hears_of_that_one_or_of_none(client: LLMBackendClient, collection: str) -> None:
    texts = [f"Pump P-{number} is checked every {number % 40 + 2} weeks." for number in range(200, 280)]
    client.rag_ingest(texts, collection)
    answer = client.rag_query("How often is pump P-233 checked?", collection)
    assert answer.startswith("In the documents' own words:\n\nPump P-233 is checked every 35 weeks. [1]")
    answer = client.rag_query("How often is pump P-433 checked?", collection)
    assert not answer.found
    assert answer.startswith("No passage has P-433.")


HEADED = """# Staff guide

## Contact: Maria Lopez, extension 4471

She is in the office every day except Friday.

## Parking

It is free for visitors in the north lot.
"""
PAGE = (
    b"<html><head><title>QX-77 pump: serviced every 6 months</title></head>"
    b"<body><p>Keep the area clean and dry. Use the red handle to open it.</p></body></html>"
)


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ("What is the extension of Maria Lopez?", "Contact: Maria Lopez, extension 4471"),
        ("How often is the QX-77 pump serviced?", "QX-77 pump: serviced every 6 months"),
    ],
)
def test_what_stands_only_in_a_heading_or_title_is_told(
    client: LLMBackendClient, collection: str, question: str, told: str
) -> None:
    client.rag_ingest(FILLER, collection)
    client.rag_ingest_files([("guide.md", HEADED.encode()), ("pump.html", PAGE)], collection)
    answer = client.rag_query(question, collection)
    assert answer.found
    assert told in answer
    assert told in answer.sources[0].quote


def test_headings_that_are_not_asked_for_are_not_told(client: LLMBackendClient, collection: str) -> None:
    answer = ask(client, collection, HEADED, "Who is in the office every day except Friday?")
    assert "Staff guide" not in answer
    assert "every day except Friday" in answer.sources[0].quote


def test_what_shares_no_word_with_the_question_is_read_though_many_others_do(
    client: LLMBackendClient, collection: str
) -> None:
    metals = ("bronze", "copper", "iron", "brass", "pewter", "silver", "lead", "zinc")
    things = ("bell", "gate", "anchor", "lantern", "clock", "pipe", "weathercock", "kettle")
    others = [
        f"The {thing} of the chapel was cast in {metal} by the harbour in spring, then painted green, hung above the "
        "northern quay and, as the books take it, sold to a museum of ships and cranes."
        for metal in metals
        for thing in things
    ]
    right = "Paid holidays: thirty a year for all staff."
    client.rag_ingest([{"id": "right", "text": right}, *others], collection)
    answer = client.rag_query("How much vacation may each of our people take?", collection)
    assert answer.sources[0].document_id == "right"
    assert "thirty" in answer


CLUB = [
    "Der Schlüssel zum Bootshaus wird gegen eine Kaution von 50 Euro ausgegeben.",
    "Das Bootshaus ist von April bis Oktober täglich ab sieben Uhr geöffnet. Im Winter bleibt es am Montag geschlossen.",
    "Der Beitrag ist bis zum 31. März zu überweisen. Wer nicht zahlt, wird zweimal gemahnt und danach ausgeschlossen.",
    "Der Vorstand besteht aus dem Vorsitzenden, dem Kassenwart und dem Schriftführer.",
]


def test_german_words_that_any_question_has_do_not_decide(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(CLUB, collection)
    for question, answered in (
        ("Wie hoch ist die Kaution für den Schlüssel?", "50 Euro"),
        ("Wann öffnet das Bootshaus?", "sieben Uhr"),
        ("Wer ist Bundeskanzler?", None),
        ("Wie wird das Wetter morgen?", None),
    ):
        answer = client.rag_query(question, collection)
        assert answer.found == (answered is not None), question
        assert (answered or "") in answer


ALIKE = {
    "English": (
        "{name} signed contract {code} for {sum} dollars.",
        "For how many dollars was contract {code} signed?",
    ),
    "German": (
        "{name} hat den Vertrag {code} über {sum} Euro unterschrieben.",
        "Über wie viel lautet Vertrag {code}?",
    ),
    "Turkish": (
        "{name}, {code} sayılı sözleşmeyi {sum} lira üzerinden imzaladı.",
        "{code}'nin tutarı nedir?",
    ),
    "French": ("{name} a signé le contrat {code} de {sum} euros.", "Quel est le montant de l'{code} ?"),
    "Chinese": ("{name}签署了{code}号合同，金额为{sum}元。", "{code}号合同的金额是多少？"),
    "Japanese": ("{name}は契約{code}（{sum}円）に署名した。", "契約{code}の金額はいくらですか。"),
}


@pytest.mark.parametrize(("text", "question"), ALIKE.values(), ids=list(ALIKE))
def test_who_asks_by_a_code_is_answered_from_its_passage(
    client: LLMBackendClient, collection: str, text: str, question: str
) -> None:
    rows = [
        {
            "name": f"Ada {number % 7}",
            "code": f"{2100 + number // 10}/5{number % 10}7",
            "sum": f"{number}31\u00a0250,40",
        }
        for number in range(100, 160)
    ]
    client.rag_ingest([text.format(**row) for row in rows], collection)
    for row in rows[5:50:22]:
        answer = client.rag_query(question.format(**row), collection)
        assert answer.found
        assert row["sum"] in answer.split("[1]")[0]  # as it is written, with the space that does not break
        assert row["code"] in answer.sources[0].text


def test_another_codes_passage_is_no_answer_however_well_its_sentence_fits(
    client: LLMBackendClient, collection: str
) -> None:
    """The sentence that answers has no code: the one before it has."""
    serials = [f"{'AEHT'[number % 4]}{number * 7817 % 100019:05}" for number in range(120)]
    client.rag_ingest(
        [
            f"{['Empty', 'Rinse', 'Paint'][number % 3]} boiler {serial} after the {['autumn', 'winter'][number % 2]} check. "
            f"The boiler stands on floor {number % 23}, and its repair costs {20 + number % 70} dollars."
            for number, serial in enumerate(serials)
        ],
        collection,
    )
    for number in (13, 21, 57):
        serial = serials[number]
        answer = client.rag_query(f"How much does the repair of boiler {serial} cost?", collection)
        assert serial in answer
        assert f"{20 + number % 70} dollars" in answer


def test_an_answer_of_an_faq_is_told_below_its_question(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(
        [
            "**May I keep hens?**\n\nUp to five, if the neighbours agree.\n\n**What does it cost?**\n\n95 euros a year."
        ],
        collection,
    )
    answer = client.rag_query("Can I have chickens?", collection)
    assert answer == (
        "In the documents' own words:\n\nMay I keep hens?\n\nUp to five, if the neighbours agree. [1]"
    )


def test_a_numbered_part_is_as_exact_as_a_code(client: LLMBackendClient, collection: str) -> None:
    for_what = ("water", "noise", "waste", "traffic")
    texts = [
        f"Section {number}. The fee for {for_what[number % 4]} is {100 + number * 37 % 997} dollars and is due by day "
        f"{number % 28 + 1} of the month."
        for number in range(1, 60)
    ]
    client.rag_ingest(texts, collection)
    for number in (7, 23, 41):
        answer = client.rag_query(f"What is the fee under section {number}?", collection)
        assert answer.found
        assert f"{100 + number * 37 % 997} dollars" in answer.split("[1]")[0]


HANDBOOK = """# Staff handbook
## 1. Vacation
Every full-time employee receives 25 days of paid holiday. Unused days expire in March.
## 2. Notice period
During probation either side may leave within two weeks. Afterwards it is three months.

3. Sick leave
-------------
Whoever is ill tells the team before nine. A doctor's note is needed from the third day on.
#### No. 4
Trips are booked by the travel desk.
"""


@pytest.mark.parametrize(
    ("question", "begins"),
    [
        ("How many days of holiday does an employee get?", "Every full-time"),
        ("How soon may one leave during probation?", "During probation"),
        ("Whom does one tell when ill?", "Whoever is ill"),
        ("Who books trips?", "Trips are booked"),
    ],
)
def test_a_heading_is_not_glued_to_the_text_right_below_it(
    client: LLMBackendClient, collection: str, question: str, begins: str
) -> None:
    answer = ask(client, collection, HANDBOOK, question)
    assert begins in [line[: len(begins)] for line in str(answer).splitlines()], str(answer)
    assert any(source.quote.startswith(begins) for source in answer.sources)


PRODUCTS = [
    ["Product", "Price", "Warranty"],
    ["Lumen headlamp", "49.90 EUR", "2 years"],
    ["Carbon tripod", "219.00 EUR", "5 years"],
    ["Carbon tripod mini", "89.00 EUR", "3 years"],
    ["Trail stove", "64.50 EUR", "1 year"],
]
SHOPS = {
    "csv": ("it.csv", "\n".join(map(",".join, PRODUCTS))),
    "md": (
        "it.md",
        "# Shop\n\nWe sell these.\n\n"
        + "\n".join(f"| {' | '.join(row)} |" for row in [PRODUCTS[0], ["---"] * 3, *PRODUCTS[1:]])
        + "\n\nAsk at the counter.\n",
    ),
}


@pytest.mark.parametrize("kind", SHOPS)
@pytest.mark.parametrize(
    ("question", "label", "found"),
    [
        ("How much does the Carbon tripod cost?", "Carbon tripod", True),
        ("What is the price of a carbon tripod mini?", "Carbon tripod mini", True),
        ("Warranty of the Lumen headlamp?", "Lumen headlamp", True),
        ("Who designed the Trail stove?", "Trail stove", False),
    ],
)
def test_a_row_that_is_named_is_told_with_its_head_and_no_other(
    client: LLMBackendClient, collection: str, kind: str, question: str, label: str, found: bool
) -> None:
    name, text = SHOPS[kind]
    client.rag_ingest_files([(name, text.encode())], collection)
    answer = client.rag_query(question, collection)
    assert answer.found == found
    prices = {row[0]: row[1] for row in PRODUCTS[1:]}
    assert [one for one, price in prices.items() if price in answer] == [label], str(answer)
    assert "Price" in answer


def test_who_asks_with_a_full_name_hears_of_that_one_or_of_none(
    client: LLMBackendClient, collection: str
) -> None:
    reports = {"Ann Lee": "Eve Gray", "Bo Fox": "Ann Lee", "Eve Gray": "Dan Moss", "Dan Moss": "Bo Fox"}
    texts = [
        f"Record. {name} works in sales. {name.split()[0]} has {20 + number} days of vacation and reports to {other}."
        for number, (name, other) in enumerate(reports.items())
    ]
    client.rag_ingest(texts, collection)
    for name, text in zip(reports, texts, strict=True):
        answer = client.rag_query(f"How many days of vacation does {name} have?", collection)
        assert answer.found
        assert answer.sources[0].text == text
    answer = client.rag_query("How many days of vacation does Ann Fox have?", collection)
    assert not answer.found
    assert answer.startswith("No passage has Ann Fox.")


OTHER_SCRIPTS = [
    ("年假为十五天。打印机在三楼会议室旁边。", "年假有多少天?", "年终奖是多少?"),
    ("يحق لكل موظف ٢١ يوم إجازة سنوية مدفوعة الأجر.", "كم يوم إجازة سنوية؟", "ما هو راتب المدير؟"),
    ("प्रत्येक कर्मचारी को वर्ष में 18 दिन की छुट्टी मिलती है।", "वर्ष में कितने दिन की छुट्टी मिलती है?", "कैंटीन कब खुलती है?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answered", "other"), OTHER_SCRIPTS, ids=["Chinese", "Arabic", "Hindi"])
def test_texts_of_the_same_script_alone_answer_nothing(
    client: LLMBackendClient, collection: str, text: str, answered: str, other: str
) -> None:
    client.rag_ingest([text], collection)
    assert client.rag_query(answered, collection).found
    assert not client.rag_query(other, collection).found
