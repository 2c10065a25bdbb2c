"""Names of user variables in a statement: @a, @`a`, @'a' and @"a" are one variable, in any case."""

from __future__ import annotations

import re

from shardproxy.sql.tokens import Token, TokenKind

_PLAIN = re.compile(r"[0-9A-Za-z_.$]+")


def variable_name(token: Token) -> str:
    """The variable's name in lower case with its @; "" for a name that is not plain ASCII."""
    name = token.text[1:]
    if len(name) > 1 and name[0] in "`'\"":
        name = name[1:-1]
    return "@" + name.lower() if _PLAIN.fullmatch(name) else ""


def assigned_at(tokens: tuple[Token, ...]) -> list[int]:
    """Indexes of the tokens whose variables the statement assigns: by :=, by SET … =, by SELECT … INTO."""
    found = []
    depth = 0
    is_set = bool(tokens) and tokens[0].upper == "SET"
    into = False
    for i, token in enumerate(tokens):
        depth += {"(": 1, ")": -1}.get(token.upper, 0)
        into = token.upper == "INTO" or (into and (token.upper == "," or token.kind is TokenKind.USER_VARIABLE))
        if token.kind is not TokenKind.USER_VARIABLE:
            continue
        after = tokens[i + 1].upper if i + 1 < len(tokens) else ""
        begins = is_set and depth == 0 and tokens[i - 1].upper in ("SET", ",")
        if into or after == ":=" or (begins and after == "="):
            found.append(i)
    return found
