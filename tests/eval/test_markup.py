"""Nothing from data becomes markup."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from parsed_page import Seen

from cogbatch.eval.report.markup import Html, element, escape, join


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_and_attribute_come_back_as_they_were(text: str) -> None:
    seen = Seen(element("p", text, attributes={"title": text}))
    assert seen.tags == [("p", {"title": text})]
    assert seen.text == text


def test_html_is_kept_and_text_is_escaped() -> None:
    assert join("<b>", element("i", "&"), Html("<br>")) == "&lt;b&gt;<i>&amp;</i><br>"
    assert element("img", attributes={"alt": 'a "cat"'}) == '<img alt="a &quot;cat&quot;">'


def test_what_html_cannot_hold_is_replaced() -> None:
    assert escape("a\x00b\x1b\x85\tc\n") == "a\ufffdb\ufffd\ufffd\tc\n"
