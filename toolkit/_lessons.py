"""The text at the top of a lesson, taken apart: what it is, and its entries ("Teaches", "Data", ...)."""

import re
from typing import NamedTuple

_ENTRY = re.compile(r"^(Teaches|Data|Source|Published|Takes|Try next) +(.+(?:\n .+)*)", flags=re.MULTILINE)


class Text(NamedTuple):
    """What a lesson says of itself.

    Attributes:
        title: The first line.
        entries: The text of each entry by its name, in one line.
        others: Paragraphs that belong to no entry, each in one line.
    """

    title: str
    entries: dict[str, str]
    others: list[str]


def take_apart(docstring: str) -> Text:
    r"""Return the parts of a lesson's docstring.

    >>> take_apart("Guess.\n\nTeaches   Luck, and\n          patience.\nTakes     2 s\n\nNo more.")
    Text(title='Guess.', entries={'Teaches': 'Luck, and patience.', 'Takes': '2 s'}, others=['No more.'])
    """
    title, _, rest = docstring.partition("\n")
    entries = {name: " ".join(text.split()) for name, text in _ENTRY.findall(rest)}
    others = [" ".join(part.split()) for part in _ENTRY.sub("", rest).split("\n\n")]
    return Text(title, entries, list(filter(None, others)))
