"""A page of HTML as a reader's program takes it apart."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page whose elements are all closed.

    Attributes:
        elements: Each element's name and attributes, in their order.
        references: What it refers to.
        text: Its texts, one for each run of characters.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.references: list[str | None] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in {"meta", "br", "link", "input"}:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.references += [value for name, value in attrs if name in {"src", "href", "action", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.text).split())

    def of_class(self, kind: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements of a CSS class."""
        return [attributes for _, attributes in self.elements if kind in (attributes.get("class") or "").split()]
