"""The one rule for names that callers choose: of users, sessions, threads, tags.

They are keys of the table, claims of tokens, headers and words in logs, so the rule is the same
wherever one is read: at mint, in a token, in a header, in a question, in what an operator writes.
"""

import re

MAX_IDENTIFIER = 255  # characters

RULE = (
    f"1 to {MAX_IDENTIFIER} characters, without control characters, line separators, bidirectional "
    "formatting characters or lone surrogates"
)

# C0, DEL and C1 controls; the twelve Bidi_Control characters (Unicode Standard Annex 9), with which
# a text is shown in another order than it has; line and paragraph separator; and surrogates, which
# JSON can spell but no text contains. `re` compiles it when it is first used.
_UNFIT = (
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]"
)


def is_identifier(value: object) -> bool:
    """Return whether this is a text that may name a user, session, thread or the like."""
    return isinstance(value, str) and 1 <= len(value) <= MAX_IDENTIFIER and is_plain(value)


def is_plain(text: str) -> bool:
    """Return whether a text of any length has only characters that an identifier may have."""
    return re.search(_UNFIT, text) is None
