"""What passages are made of: sentences, headings, items, steps, rows; and what says nothing."""

from __future__ import annotations

from itertools import pairwise

import pytest

from llmbackend.answers.stretches import around, written
from llmbackend.answers.units import units

OPTIONS = """General settings
-------------------------

.. tabs::

    .. tab:: Timing

        ===================== ==============================================
        **Option**            **Description**
        ===================== ==============================================
        **Shortest interval** The least time between two announcements,
                              in seconds. It defaults to 200.
        **Lifetime**          How long a host may use the gateway.
        ===================== ==============================================

.. Warning::

    A lifetime of zero withdraws the gateway.

.. note:: Restart the service afterwards.
"""
SIGNALS = """
+-----------+--------------------------------+
| Signal    | Action                         |
+===========+================================+
| ``HUP``   | Read the settings again.       |
|           | All routes are lost.           |
+-----------+--------------------------------+
| ``USR1``  | Begin a new log.               |
+-----------+--------------------------------+
"""
COMMANDS = """.. _timing:

.. command:: hello-interval (20-655340)

   The time between two greetings, in milliseconds. The default is 4000 ms.

.. image:: images/greeting.png
   :alt: A greeting
   :width: 300

.. toctree::
   :maxdepth: 1

   greetings
   farewells
"""


def told(text: str) -> list[tuple[str, str]]:
    return [(unit.kind, " ".join(text[unit.start : unit.end].split())) for unit in units(text)]


def telling(text: str) -> list[str]:
    return [" ".join(text[unit.start : unit.end].split()) for unit in units(text) if unit.tells]


def test_rows_of_a_simple_table_are_whole_and_directives_say_nothing() -> None:
    assert telling(OPTIONS) == [
        "**Option** **Description**",
        "**Shortest interval** The least time between two announcements, in seconds. It defaults to 200.",
        "**Lifetime** How long a host may use the gateway.",
        "A lifetime of zero withdraws the gateway.",
        "Restart the service afterwards.",
    ]
    assert [said for kind, said in told(OPTIONS) if kind == "heading"] == ["General settings", "Timing"]


def test_rows_of_a_grid_are_whole() -> None:
    assert telling(SIGNALS) == [
        "| Signal | Action |",
        "| ``HUP`` | Read the settings again. | | | All routes are lost. |",
        "| ``USR1`` | Begin a new log. |",
    ]


@pytest.mark.parametrize("text", [OPTIONS, SIGNALS])
def test_a_row_is_told_with_its_head_and_without_rules(text: str) -> None:
    parts = units(text)
    rows = [index for index, unit in enumerate(parts) if unit.kind == "row"]
    said = written(text, parts, around(text, parts, rows[-1], 5, 14), 100).splitlines()
    assert said[0] in ("**Option** **Description**", "| Signal | Action |")
    assert "Begin a new log" in said[-1] or "Lifetime" in said[-1]
    assert not any(set(line) & set("=+") for line in said)


def test_what_a_directive_names_is_a_heading_and_images_are_nothing() -> None:
    assert told(COMMANDS) == [
        ("mark", ".. _timing:"),
        ("mark", ".. command::"),
        ("heading", "hello-interval (20-655340)"),
        ("sentence", "The time between two greetings, in milliseconds."),
        ("sentence", "The default is 4000 ms."),
        ("mark", ".. image:: images/greeting.png"),
        ("mark", ":alt: A greeting :width: 300"),
        ("mark", ".. toctree::"),
        ("mark", ":maxdepth: 1 greetings farewells"),
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("* [Setting up](#setting-up)", "mark"),
        ("![The plug](images/plug.png)", "mark"),
        (":orphan:", "mark"),
        ("* [The form](https://forms.example/7) is sent by post.", "item"),
        (":menuselection:`System --> Backups` keeps them.", "sentence"),
        ("3. Press the button.", "step"),
        ("$ service restart", "sentence"),
        ("Opening hours", "heading"),
    ],
)
def test_a_line_is_what_it_looks_like(line: str, kind: str) -> None:
    assert told(f"{line}\n\nThe office opens at nine. It closes at five.\n")[0] == (kind, line)


@pytest.mark.parametrize("text", [OPTIONS, SIGNALS, COMMANDS])
@pytest.mark.parametrize("cut", range(0, 400, 13))
def test_a_cut_table_loses_nothing_and_says_nothing_twice(text: str, cut: int) -> None:
    """A passage may begin or end within a table."""
    for part in (text[cut:], text[:cut]):
        spans = [(unit.start, unit.end) for unit in units(part)]
        assert spans == sorted(spans)
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
        shown = "".join(part[start:end] for start, end in spans)
        assert "".join(shown.split()) == "".join(part.split())


FAQ = """**How big is a plot?**

Most have 200 square metres. Is that enough? For most.

Q: When is the shredder lent out?
A: On Saturdays, by J. Smith (e.g. from nine to noon), Dr. Lee and Mr. Roe.

Section 14 Pets

Small animals need no consent.

- Safety
- What is included?
- Cleaning the filter

Before it is put back:

- Is it dry?
- Is it warm?

filter.png

Rinse it.
"""


def test_questions_of_an_faq_and_numbered_titles_are_headings_and_contents_are_marks() -> None:
    told = [(unit.kind, FAQ[unit.start : unit.end]) for unit in units(FAQ)]
    assert [said for kind, said in told if kind == "heading"] == [
        "**How big is a plot?**",
        "Q: When is the shredder lent out?",
        "Section 14 Pets",
    ]
    assert [said for kind, said in told if kind == "sentence"] == [
        "Most have 200 square metres.",
        "Is that enough?",
        "For most.",
        "A: On Saturdays, by J. Smith (e.g. from nine to noon), Dr. Lee and Mr. Roe.",
        "Small animals need no consent.",
        "Before it is put back:",
        "Rinse it.",
    ]
    assert [said for kind, said in told if kind == "mark"] == [
        "- Safety",
        "- What is included?",
        "- Cleaning the filter",
        "filter.png",
    ]
    assert [said for kind, said in told if kind == "item"] == ["- Is it dry?", "- Is it warm?"]


def test_an_answer_ends_where_the_next_question_begins() -> None:
    parts = units(FAQ)
    [place] = [place for place, unit in enumerate(parts) if FAQ[unit.start :].startswith("A: On")]
    assert written(FAQ, parts, around(FAQ, parts, place, 60, 130), 130).startswith("A: On Saturdays")


TEMPLATES = """Templates save time for documents that are alike.

To make one:

1. Write a document. It may have pictures.
2. Save it in the folder for templates.
   Make that folder first if there is none.

   Its name does not matter.

To use one:

- Open the folder. Choose the document.
- Save it under another name.

Templates are not sent along."""


def test_all_sentences_of_an_item_belong_to_its_list() -> None:
    kinds = [(unit.kind, unit.continues, unit.block) for unit in units(TEMPLATES)]
    assert kinds == [
        ("sentence", False, 0),
        ("sentence", False, 1),
        ("step", False, 2),
        ("step", True, 2),
        ("step", False, 2),
        ("step", True, 2),
        ("step", True, 2),
        ("sentence", False, 3),
        ("item", False, 4),
        ("item", True, 4),
        ("item", False, 4),
        ("sentence", False, 5),
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            "Make that folder",
            "To make one:\n1. Write a document. It may have pictures.\n"
            "2. Save it in the folder for templates. Make that folder first if there is none. Its name does not matter.",
        ),
        ("Choose the", "To use one:\n- Open the folder. Choose the document.\n- Save it under another name."),
    ],
)
def test_a_list_is_quoted_whole_with_all_sentences_of_its_items(asked: str, said: str) -> None:
    parts = units(TEMPLATES)
    best = next(number for number, unit in enumerate(parts) if TEMPLATES[unit.start :].startswith(asked))
    chosen = around(TEMPLATES, parts, best, 15, 60)
    assert written(TEMPLATES, parts, chosen, 60) == said


def test_a_paragraph_is_quoted_with_the_list_that_follows_if_there_is_room() -> None:
    parts = units(TEMPLATES)
    with_list = written(TEMPLATES, parts, around(TEMPLATES, parts, 0, 12, 60), 60)
    assert with_list.startswith("Templates save time")
    assert with_list.endswith("Its name does not matter.")
    alone = written(TEMPLATES, parts, around(TEMPLATES, parts, 0, 12, 20), 20)
    assert alone == "Templates save time for documents that are alike."


def test_of_a_long_list_whole_items_are_quoted() -> None:
    text = "\n".join(f"* Number {n} is here. It is described in these words." for n in range(20))
    parts = units(text)
    best = 19  # the second sentence of the tenth item
    said = written(text, parts, around(text, parts, best, 30, 40), 40)
    assert all(line.startswith("* Number") and line.endswith("words.") for line in said.splitlines())
    assert len(said.splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('A b c d <a href="https://host.example/page x">linked words</a> and more', "A b c d …"),
        ("A b c d [some more words](https://host.example) and more", "A b c d …"),
        ("A b c d (e f g h i) and more", "A b c d (e …"),
        ("A < b c d e f", "A < b c d …"),
    ],
)
def test_no_tag_or_link_is_cut_in_two(text: str, said: str) -> None:
    assert written(text, units(text), range(len(units(text))), 5) == said


IN_MARKDOWN = """Install it:

```sh
pip install depot
depot init
```

- It needs a key:

  ~~~
  key:
    name: depot
  ~~~

Why? Because others may write, too."""
IN_RST = """Where is the limit set? It is set in the settings, like this::

    from depot import Depot

    with Depot() as depot:
        depot.limit = 16

The code above limits it to 16.

.. code-block:: python
   :linenos:

   def limit():
       return 16

Nothing else does."""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (IN_MARKDOWN, ["pip install depot\ndepot init", "key:\n    name: depot"]),
        (
            IN_RST,
            [
                "from depot import Depot",
                "with Depot() as depot:\n        depot.limit = 16",
                "def limit():\n       return 16",
            ],
        ),
        # A passage may begin or end within code.
        ("print(1)\n```\n\nAfter it.\n\n```\nprint(2)\n```", ["print(2)"]),
        ("Before it.\n\n```python\nprint(1)\n```\n\n```python\nprint(2)", ["print(1)"]),
        ("Like this::", []),
        ("Like this::\n\n\n", []),
        ("```\n```", []),
    ],
)
def test_code_is_told_by_fences_and_by_what_is_above_it(text: str, code: list[str]) -> None:
    assert [text[unit.start : unit.end] for unit in units(text) if unit.kind == "code"] == code


@pytest.mark.parametrize(
    ("text", "asked", "said"),
    [
        (IN_MARKDOWN, "Install it", "Install it:\n\n```\npip install depot\ndepot init\n```"),
        (
            IN_RST,
            "It is set",
            "It is set in the settings, like this::\n\n"
            "```\nfrom depot import Depot\n\nwith Depot() as depot:\n    depot.limit = 16\n```",
        ),
        ("Like this::\n\n    ```\n    a\n    ```\n", "Like", "Like this::\n\n````\n```\na\n```\n````"),
    ],
)
def test_code_is_quoted_with_its_lines_and_what_announces_it(text: str, asked: str, said: str) -> None:
    parts = units(text)
    best = next(number for number, unit in enumerate(parts) if text[unit.start :].startswith(asked))
    assert written(text, parts, around(text, parts, best, 12, 60), 60) == said


def test_code_that_is_cut_ends_in_a_fence() -> None:
    text = "Like this::\n\n" + "\n".join(f"    line {number}" for number in range(100))
    parts = units(text)
    assert written(text, parts, range(len(parts)), 8) == "Like this::\n\n```\nline 0\nline 1\nline …\n```"


def test_a_quote_does_not_end_in_a_question() -> None:
    text = "Files are kept in memory if they are small. But how large may one be? It may have 16 MB."
    parts = units(text)
    assert written(text, parts, around(text, parts, 0, 14, 60), 60) == text.partition(" But")[0]
    assert written(text, parts, around(text, parts, 1, 10, 60), 60) == text.partition("small. ")[2]
