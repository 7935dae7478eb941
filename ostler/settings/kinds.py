"""The kinds of values that settings have: each class parses, checks and shows the values of one kind.

Pure. `ostler.settings.declarations` says which setting is of which kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ostler.records import record
from ostler.settings.access_format import parse as parse_access_format
from ostler.settings.field_grammar import is_field_value, is_token
from ostler.settings.trusted_peers import read_peers

_A_LONG_TIME = 1e9
"""In seconds: some thirty years. Beyond it the C library's clocks overflow."""


class Kind:
    """A kind of value: `parse` takes a flag's or variable's text, `check` TOML's values, `take` code's."""

    metavar = "TEXT"
    expected = "a text"
    secret = False
    """Whether values are hidden where settings are printed or logged."""
    takes_none = False
    """Whether None, given in code, is a value of this kind. Otherwise None means that nothing is given."""

    def parse(self, text: str) -> Any:
        """Return the value that `text` stands for.

        Raises:
            ValueError: the text is not of this kind; `expected` says what is.
        """
        return self.check(text)

    def check(self, value: object) -> Any:
        """Return `value` as it is stored in `Settings`.

        Raises:
            ValueError: the value is not of this kind.
        """
        if not isinstance(value, str):
            raise ValueError
        return value

    def take(self, value: object) -> Any:
        """Return `value`, given in code, as it is stored in `Settings`.

        Accepts what `check` accepts, what is stored, and Python objects that TOML cannot express.

        Raises:
            ValueError: the value is not of this kind.
        """
        return self.check(value)

    def note(self, given: object) -> str:
        """Return a warning about a value that is accepted although it means something else than its writer
        may think; "" if there is none. `given` is what `parse`, `check` or `take` has accepted."""
        return ""

    def show(self, value: Any) -> str:
        """Return the text of `value`, which `parse` would read; "" for None."""
        return "" if value is None else str(value)


class Text(Kind):
    """Any text without a NUL."""

    def __init__(self, metavar: str = "TEXT", expected: str = "a text", *, empty: bool = False) -> None:
        self.metavar = metavar
        self.expected = expected
        self.empty = empty

    def check(self, value: object) -> str:
        # No path, address or name can hold a NUL. It would fail later, with a less clear message.
        if not isinstance(value, str) or "\0" in value or not (value or self.empty):
            raise ValueError
        return value

    def take(self, value: object) -> str:
        # An os.PathLike, recognized by its method: a pure module does not import os.
        return self.check(value.__fspath__() if hasattr(value, "__fspath__") else value)


class TargetPath(Kind):
    """The path of a request, as in the request line."""

    metavar = "PATH"
    expected = "a path that starts with / and has neither spaces, ? nor #"

    def check(self, value: object) -> str:
        if not isinstance(value, str) or not value.startswith("/"):
            raise ValueError
        # It is compared with request lines byte by byte: a character that cannot be in one would never match.
        if not all("!" <= c <= "~" and c not in "?#" for c in value):
            raise ValueError
        return value


class ImportString(Kind):
    """An import string `module:attribute`; both parts may have dots."""

    metavar = "APP"
    expected = "module:attribute, such as main:app"

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        module, _, attribute = value.partition(":")
        # No isidentifier() for the module: a file named my-app.py can be imported by its name.
        if any(c.isspace() or c in "/\\" for c in module) or not all(module.split(".")):
            raise ValueError
        if not all(part.isidentifier() for part in attribute.split(".")):
            raise ValueError
        return value

    def take(self, value: object) -> Any:
        # The application object. The server finds out its interface.
        return value if callable(value) else self.check(value)


class Host(Kind):
    """A host to listen on; an IPv6 address may be in brackets, as in a URL."""

    metavar = "HOST"
    expected = "a host name or an address"

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        host = value[1:-1] if value.startswith("[") and value.endswith("]") else value
        if not host or any(c.isspace() or c in ",/[]\0" for c in host):
            raise ValueError
        return host


class Switch(Kind):
    """On or off: `--name` and `--no-name` as flags; 1/0, true/false, yes/no or on/off as a variable.

    Also t/f and y/n, which click takes, and so uvicorn."""

    metavar = ""
    expected = "true or false"
    words: Mapping[str, bool] = MappingProxyType(
        dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True)
        | dict.fromkeys(("0", "false", "f", "no", "n", "off"), False)
    )

    def parse(self, text: str) -> bool:
        try:
            return self.words[text.strip().lower()]
        except KeyError:
            raise ValueError from None

    def check(self, value: object) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        return "" if value is None else str(value).lower()


class Integer(Kind):
    """A whole number from `minimum` to `maximum`, both included."""

    metavar = "INTEGER"

    def __init__(self, minimum: int = 0, maximum: int | None = None) -> None:
        self.minimum = minimum
        self.maximum = maximum
        upper = "" if maximum is None else f" and at most {maximum}"
        self.expected = f"a whole number of at least {minimum}{upper}"

    def parse(self, text: str) -> Any:
        # int() also accepts "1_000" and the digits of other scripts.
        digits = text.strip()
        if not digits.isascii() or not digits.isdigit():
            raise ValueError
        return self.check(int(digits))

    def check(self, value: object) -> Any:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        if value < self.minimum or (self.maximum is not None and value > self.maximum):
            raise ValueError
        return value


class Seconds(Kind):
    """A duration in seconds, which may have fractions; `zero` says whether 0 is allowed."""

    metavar = "SECONDS"

    def __init__(self, *, zero: bool = False) -> None:
        self.zero = zero
        self.expected = "a number of seconds, 0 or more" if zero else "a number of seconds above 0"

    def parse(self, text: str) -> float:
        # float() also accepts "1_000", and "infinity", which `check` refuses.
        if "_" in text or not text.isascii():
            raise ValueError
        return self.check(float(text))

    def check(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError
        # Every comparison with NaN is false, so this form of the condition refuses it.
        if not (0 <= value <= _A_LONG_TIME) or (value == 0 and not self.zero):
            raise ValueError
        return float(value)

    def show(self, value: Any) -> str:
        return "" if value is None else f"{value:.12g}"


@record
class Foreign:
    """A word of uvicorn's that ostler does not have: the word that it stands for, and the warning."""

    meaning: str
    note: str


class Choice(Kind):
    """One of a few words, or one of `foreign`, each of which stands for one of these."""

    def __init__(self, *words: str, foreign: Mapping[str, Foreign] = MappingProxyType({})) -> None:
        self.words = words
        self.foreign = foreign
        self.metavar = f"[{'|'.join(words)}]"
        self.expected = f"one of {', '.join(words)}"

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        word = value.strip().lower()
        if word in self.foreign:
            return self.foreign[word].meaning
        if word not in self.words:
            raise ValueError
        return word

    def note(self, given: object) -> str:
        word = given.strip().lower() if isinstance(given, str) else ""
        return self.foreign[word].note if word in self.foreign else ""


class Loop(Choice):
    """One of a few event loops, or the import string of a function that makes one."""

    def __init__(self, *words: str, foreign: Mapping[str, Foreign]) -> None:
        super().__init__(*words, foreign=foreign)
        self.metavar = f"[{'|'.join(words)}|MODULE:FUNCTION]"
        self.expected = f"one of {', '.join(words)}, or module:function"

    def check(self, value: object) -> str:
        return (
            ImportString().check(value) if isinstance(value, str) and ":" in value else super().check(value)
        )


class LogLevel(Choice):
    """The least level that is logged; code may also give a number of `logging`."""

    numbers: Mapping[int, str] = MappingProxyType(
        {5: "trace", 10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}
    )

    def __init__(self) -> None:
        super().__init__(*list(self.numbers.values())[::-1])

    def take(self, value: object) -> str:
        if isinstance(value, bool) or not isinstance(value, int):
            return self.check(value)
        # No record has a level between two of these, so the next one above has the same effect.
        return next((word for number, word in self.numbers.items() if value <= number), "critical")


class Octal(Kind):
    """File permissions, written in octal as chmod(1) takes them: 660, 0660 or 0o660."""

    metavar = "OCTAL"
    expected = 'file permissions in octal, as text such as "660"'

    def parse(self, text: str) -> int:
        digits = text.strip().lower().removeprefix("0o")
        if not digits or not all(c in "01234567" for c in digits):
            raise ValueError
        mode = int(digits, 8)
        if mode > 0o777:
            raise ValueError
        return mode

    def check(self, value: object) -> int:
        # TOML reads an integer 660 as decimal, which is not meant. So only text is accepted.
        if not isinstance(value, str):
            raise ValueError
        return self.parse(value)

    def take(self, value: object) -> int:
        # In code it is written 0o660. A decimal 660 or 600 by mistake is larger than 0o777, and refused.
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
            return value
        return self.check(value)

    def show(self, value: Any) -> str:
        return "" if value is None else f"{value:o}"


class Bytes(Kind):
    """An amount of memory in bytes; a text may end in K, M or G, the powers of 1024."""

    metavar = "BYTES"
    expected = "a number of bytes above 0, such as 512M (K, M and G are powers of 1024)"
    units: Mapping[str, int] = MappingProxyType({"G": 2**30, "M": 2**20, "K": 2**10})

    def check(self, value: object) -> int:
        if isinstance(value, str):
            digits = value.strip().upper()
            unit = self.units.get(digits[-1:], 1)
            digits = digits[:-1] if unit > 1 else digits
            if not digits.isascii() or not digits.isdigit():
                raise ValueError
            value = int(digits) * unit
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError
        return value

    def show(self, value: Any) -> str:
        if value is None:
            return ""
        unit, size = next(((u, s) for u, s in self.units.items() if value % s == 0), ("", 1))
        return f"{value // size}{unit}"


class HeadLimit(Integer):
    """A size in bytes; less than `LEAST` counts as that: a common request has a longer head."""

    LEAST = 1024

    def __init__(self) -> None:
        super().__init__(minimum=1)

    def check(self, value: object) -> int:
        return max(self.LEAST, int(super().check(value)))

    def note(self, given: object) -> str:
        return f"counts as {self.LEAST}, the least" if int(str(given)) < self.LEAST else ""


class Workers(Integer):
    """A number of workers, or `auto`: one for each CPU that the process may use.

    0 is None, a plain server, as for uvicorn; so it can override a variable."""

    metavar = "INTEGER|auto"

    def __init__(self) -> None:
        super().__init__()
        self.expected = "a whole number of at least 1, 0 for a plain server, or auto"

    def parse(self, text: str) -> Any:
        return self.check(text) if text.strip().lower() == "auto" else super().parse(text)

    def check(self, value: object) -> Any:
        if isinstance(value, str) and value.strip().lower() == "auto":
            return "auto"
        return super().check(value) or None


class HeaderLine(Kind):
    """A response header as `Name:Value`."""

    metavar = "NAME:VALUE"
    expected = "a header as Name:Value, in Latin-1 and on one line"

    def check(self, value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        name, colon, content = value.partition(":")
        # UnicodeEncodeError is a ValueError.
        if not colon or not is_token(name.strip().encode("latin-1")):
            raise ValueError
        if not is_field_value(content.encode("latin-1")):
            raise ValueError
        return value

    def take(self, value: object) -> str:
        # uvicorn's `headers` are pairs of name and value.
        if isinstance(value, (tuple, list)) and len(value) == 2 and all(isinstance(x, str) for x in value):
            name, content = value
            return self.check(f"{name}:{content}" if ":" not in name else "")
        return self.check(value)


class Peers(Kind):
    """A list of peers to trust; stored as text, which `ostler.settings.trusted_peers` parses."""

    metavar = "LIST"
    expected = "addresses, networks (10.0.0.0/8), unix: or *, separated by commas"

    def check(self, value: object) -> str:
        # In TOML and in code a list is natural.
        if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
            value = ",".join(value)
        if not isinstance(value, str):
            raise ValueError
        read_peers(value)
        return value

    def note(self, given: object) -> str:
        others = sorted(read_peers(self.check(given)).literals - {"unix:"})
        if not others:
            return ""
        return (
            f"names are not looked up, so {', '.join(others)} matches only this text in X-Forwarded-For; "
            "unix: stands for peers over a Unix socket"
        )


class AccessFormat(Kind):
    """A format of access log lines in gunicorn's notation, or the name of one."""

    metavar = "FORMAT"
    expected = "gunicorn's atoms, such as %(h)s, or the name common or combined"

    def check(self, value: object) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ValueError
        parse_access_format(value)
        return value


@record
class LogConfig:
    """A log configuration: the name of its file, and its content once the file is read."""

    name: str
    content: Mapping[str, Any] | str | None = None
    """A table for `logging.config.dictConfig`, or a text for `fileConfig`."""


OWN_LOG_CONFIG = LogConfig("", "")
"""The default: ostler's own formats. None is something else: leave logging alone, as with uvicorn."""


class LogConfigFile(Kind):
    """The file of a log configuration; code may also give a mapping for `logging.config.dictConfig`."""

    metavar = "FILE"
    expected = "the path of a .json, .toml, .yaml or .yml file, or else of an INI file"
    takes_none = True

    def check(self, value: object) -> LogConfig:
        if isinstance(value, Mapping):
            return LogConfig("from code", value)
        fspath = getattr(value, "__fspath__", None)
        path = fspath() if callable(fspath) else value
        if not isinstance(path, str) or not path or "\0" in path:
            raise ValueError
        return LogConfig(path)

    def take(self, value: object) -> LogConfig | None:
        return value if value is None or isinstance(value, LogConfig) else self.check(value)

    def show(self, value: Any) -> str:
        return "none" if value is None else str(value.name)


class Many(Kind):
    """Several values of a kind: a flag given several times, a TOML list, a variable split at `separator`.

    At least `least` of them must be given."""

    def __init__(self, item: Kind, *, separator: str = ",", least: int = 0) -> None:
        self.item = item
        self.separator = separator
        self.least = least
        self.metavar = item.metavar
        self.expected = item.expected

    def parse(self, text: str) -> tuple[Any, ...]:
        return self._enough(self.item.parse(p.strip()) for p in text.split(self.separator) if p.strip())

    def check(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            return (self.item.check(value),)
        if not isinstance(value, (list, tuple)):
            raise ValueError
        return self._enough(self.item.check(item) for item in value)

    def take(self, value: object) -> tuple[Any, ...]:
        if isinstance(value, (list, tuple)):
            return self._enough(self.item.take(item) for item in value)
        return (self.item.take(value),)

    def show(self, value: Any) -> str:
        return ", ".join(self.item.show(item) for item in value)

    def _enough(self, values: Any) -> tuple[Any, ...]:
        found = tuple(values)
        if len(found) < self.least:
            raise ValueError
        return found
