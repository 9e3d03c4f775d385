"""Progress bars where nobody watches them move: a pipe or a file gets a line every ten seconds."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import IO

SECONDS = 10
# tqdm's settings (https://tqdm.github.io/docs/tqdm/#tqdm-objects), which it reads when it is imported, in child
# processes too; what is done before the first line is due has none
LINES = {
    "TQDM_MININTERVAL": str(SECONDS),
    "TQDM_DELAY": str(SECONDS),
    "TQDM_BAR_FORMAT": "{l_bar} {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
}


class LineByLine:
    """A text stream in which a bar's next state, which begins with a carriage return, is a line of its own."""

    def __init__(self, stream: IO[str]):
        self._stream = stream
        self._ended = False  # the line of a bar, which the bar will end too

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        written = len(text)
        if text.startswith("\r"):
            state = text.strip()
            text, self._ended = f"{state}\n" if state else "", True
        elif self._ended and text:
            text, self._ended = text.removeprefix("\n"), False
        self._stream.write(text)
        return written


@contextlib.contextmanager
def bars_as_lines() -> Iterator[None]:
    """Progress bars on standard error are lines in the block, unless that is a terminal; TQDM_… of the user's stay."""
    if sys.stderr.isatty():
        yield
        return
    for name, value in LINES.items():
        os.environ.setdefault(name, value)
    with contextlib.redirect_stderr(LineByLine(sys.stderr)):
        yield
