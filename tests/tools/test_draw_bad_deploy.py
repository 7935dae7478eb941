"""A terminal's text as an SVG."""

import re
from xml.etree import ElementTree

from tools.draw_bad_deploy import COLOURS, COLUMNS, FOREGROUND, PICTURE, draw

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[tuple[str, dict[str, str]]]:
    return [(text.text or "", text.attrib) for text in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def test_colours_are_those_of_the_terminal_and_end_where_they_end_there() -> None:
    shown = texts(draw("\x1b[31mERROR\x1b[0m:    <no> & more"))

    assert [(text, attributes["fill"]) for text, attributes in shown] == [
        ("ERROR", COLOURS[31]),
        (":", FOREGROUND),
        ("<no> & more", FOREGROUND),
    ]


def test_a_piece_of_text_is_as_wide_as_its_columns() -> None:
    [(_, first), (_, second)] = texts(draw("ab    cd"))

    assert float(second["x"]) - float(first["x"]) == 3 * float(first["textLength"])


def test_a_long_line_goes_on_in_the_next_row_indented() -> None:
    words = "word " * COLUMNS

    shown = texts(draw(words.strip()))

    assert " ".join(text for text, _ in shown) == words.strip()
    assert len({attributes["y"] for _, attributes in shown}) == len(shown) > 4
    assert len({attributes["x"] for _, attributes in shown}) == 2


def test_the_committed_picture_shows_that_no_request_failed_and_asks_no_other_host_for_anything() -> None:
    picture = PICTURE.read_text(encoding="utf-8")

    assert re.search(
        r"^\d[\d,]+ requests: [\d,]+ answered by .release 1., 0 failed$", shown_by(picture), re.M
    )
    assert "4 workers of generation 1 serve on" in shown_by(picture)
    assert re.findall(r"(?:href|src|url|@import)[=(]?[\"']?([^\"')]+)", picture) == []


def shown_by(picture: str) -> str:
    return "\n".join(text.text or "" for text in ElementTree.fromstring(picture).iter(f"{SVG}desc"))
