"""The kinds of upstream: what an operator says about one, and how a request is addressed to it.

This is the only list of them. The admin API's document, the flags of `weir upstreams set`, the
checks of what an operator writes and the chat function's requests all follow from it, so a kind
that takes a key is a row here and nothing else. Where a credential comes from (the vault, or the
function's role) is in `weir.upstreams.providers`.

The chat function imports this, so it is made of named tuples, which take a fifth of the time of
dataclasses to define, and no pattern is compiled before it is needed.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple
from urllib.parse import quote

from weir.projects.extras import NO_EXTRAS, Extras, of_host
from weir.projects.model_kinds import CHAT, EMBEDDING, MODERATION


class Destination(NamedTuple):
    """Where one request goes below its base URL, and the one header that admits it there.

    `secret` is the credential itself, which must be cut out of whatever the provider sends back.
    """

    path: str
    header: tuple[str, str]
    secret: str


class Setting(NamedTuple):
    """Something an operator says about an upstream, as a string; the CLI's flag is `--name`.

    `pattern` and `max_length` are in the API's document; `meaning` explains the pattern in words.
    `parse` does what these cannot: it returns the value as it is kept, or raises ValueError.
    """

    name: str
    description: str
    example: str
    metavar: str | None = None
    pattern: str | None = None
    meaning: str = ""
    max_length: int | None = None
    parse: Callable[[str], str] | None = None


# As OpenAI has them.
_OTHER_PATHS: Mapping[str, str] = {EMBEDDING: "/embeddings", MODERATION: "/moderations"}


class Kind(NamedTuple):
    """One way to reach a provider.

    `path` follows the base URL; `{model}` and `{<setting>}` in it are filled in, percent-encoded.
    It is that of chats; `other_paths` has those of the other kinds of models that it serves.
    The credential goes into `header`, after `scheme`. The operator gives it, unless
    `no_key_because` says why not; `advice` then says what else is to be known. `in_process`: the
    answer is made by the function itself, so nothing is addressed. `models` are the only names
    that a candidate may have here; empty: any. `beyond_base` is a regular expression: where it is
    found in a base URL, the URL goes on after its end, which is before `ends_before`. `extras` is
    what its providers take beyond OpenAI's request; None: that depends on the host of the base URL.
    """

    name: str
    title: str
    summary: str
    required: tuple[Setting, ...] = ()
    optional: tuple[Setting, ...] = ()
    path: str = "/chat/completions"
    other_paths: Mapping[str, str] = _OTHER_PATHS
    header: str = "Authorization"
    scheme: str = "Bearer "
    no_key_because: str = ""
    in_process: bool = False
    models: tuple[str, ...] = ()
    advice: str = ""
    ends_before: str = "/chat/completions"
    beyond_base: str = r"/chat/completions$"
    extras: Extras | None = NO_EXTRAS

    @property
    def has_key(self) -> bool:
        return not self.no_key_because

    @property
    def settings(self) -> tuple[Setting, ...]:
        return self.required + self.optional

    def serves(self, kind_of_model: str) -> bool:
        return kind_of_model == CHAT or kind_of_model in self.other_paths

    def destination(
        self, model: str, settings: Mapping[str, str], secret: str, kind_of_model: str = CHAT
    ) -> Destination:
        """`model` is the upstream's own name of it: of Azure's kind, the deployment. Raises
        KeyError for a kind of model that it does not serve.
        """
        values = {name: quote(value, safe="") for name, value in settings.items()}
        path = self.path if kind_of_model == CHAT else self.other_paths[kind_of_model]
        path = path.format(**{**values, "model": quote(model, safe="")})
        return Destination(path, (self.header, self.scheme + secret), secret)

    def parse(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the settings as they are kept. Raise ValueError unless they are this kind's. They
        match their patterns already.
        """
        taken = [setting.name for setting in self.settings]
        for name in settings:
            if name not in taken:
                listed = " and ".join(taken)
                raise ValueError(f"{name}: an upstream of kind {self.name} takes only {listed}")
        for setting in self.required:
            if setting.name not in settings:
                raise ValueError(f"{setting.name} is required")
        kept = {
            setting.name: setting.parse(settings[setting.name])
            for setting in self.settings
            if setting.parse and setting.name in settings
        }
        if re.search(self.beyond_base, kept.get("base_url", "")):
            raise ValueError(f"base_url ends before {self.ends_before}")
        return {**settings, **kept}


def _base_url(text: str) -> str:
    text = text.rstrip("/")
    found = re.fullmatch(_BASE_URL, text)
    if found is None or int(found["port"] or 443) > 65_535:
        raise ValueError(
            "base_url must be https://host/path and nothing more; http:// only within a "
            "private network, because the provider's key travels with it"
        )
    return text


# One label alone is a name of the private network. It begins with a letter: 134744072 is 8.8.8.8.
_LABEL = r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_OCTETS = r"(\.[0-9]{1,3})"
_BASE_URL = (
    rf"(https://{_LABEL}(\.{_LABEL})*"
    rf"|http://([a-z][a-z0-9-]*|(127|10){_OCTETS}{{3}}|192\.168{_OCTETS}{{2}}"
    rf"|172\.(1[6-9]|2[0-9]|3[01]){_OCTETS}{{2}}))"
    r"(:(?P<port>[1-9][0-9]{0,4}))?(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*"
)

BASE_URL = Setting(
    "base_url",
    "ends before /chat/completions, or Azure's before /openai; https, or http within a private "
    "network",
    "https://api.openai.com/v1",
    metavar="URL",
    max_length=500,
    parse=_base_url,
)
REGION = Setting(
    "region",
    "if not the deployment's own",
    "eu-west-1",
    pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9]$",
    meaning="a region of AWS, such as eu-west-1",
)
API_VERSION = Setting(
    "api_version",
    "2024-10-21 or later; older versions refuse stream_options, which every stream is asked with",
    "2024-10-21",
    metavar="DATE",
    pattern=r"^20[0-9]{2}-[0-9]{2}-[0-9]{2}(-preview)?$",
    meaning="a dated version of Azure's API, such as 2024-10-21 or 2025-04-01-preview",
)

# What each does is in `weir.upstreams.mock`, and for readers in docs/mock.md.
MOCK_MODELS = ("echo", "slow", "silent", "error-400", "error-429", "error-500", "error-mid-stream")

KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "openai",
            "OpenAI",
            "any provider that speaks OpenAI chat completions, with a key",
            required=(BASE_URL,),
            extras=None,
        ),
        Kind(
            "bedrock",
            "Bedrock",
            "Amazon Bedrock through the deployment's own role",
            optional=(REGION,),
            other_paths={},
            no_key_because="the deployment's role is its credential",
            advice="the stack's parameter AllowBedrock must be true",
        ),
        # Microsoft, "Azure OpenAI REST API reference", chat completions. The deployment in the path
        # decides; the model in the body is ignored.
        Kind(
            "azure",
            "Azure OpenAI",
            "Azure OpenAI's dated API, with a key (a candidate's model is the deployment's name)",
            required=(BASE_URL, API_VERSION),
            path="/openai/deployments/{model}/chat/completions?api-version={api_version}",
            other_paths={
                EMBEDDING: "/openai/deployments/{model}/embeddings?api-version={api_version}"
            },
            header="api-key",
            scheme="",
            ends_before="/openai; one that ends in /openai/v1 is of kind openai",
            beyond_base=r"/openai(/v1|/deployments(/.*)?)?$",
        ),
        Kind(
            "mock",
            "The mock provider",
            "answers within the gateway, without a network, a key or a model: to try things out",
            no_key_because="it answers within the gateway",
            advice="its answers are made up, and it is the one provider that costs nothing",
            in_process=True,
            other_paths={},
            models=MOCK_MODELS,
        ),
    )
}
# Of all kinds, each once.
SETTINGS = {setting.name: setting for kind in KINDS.values() for setting in kind.settings}


def described(setting: Setting) -> str:
    """The setting's description, after the kinds that take it."""
    kinds = [name for name, kind in KINDS.items() if setting in kind.settings]
    return f"of kind {' and '.join(kinds)}: {setting.description}"


def extras_of(kind: str, settings: Mapping[str, str]) -> Extras:
    """Return what an upstream takes beyond OpenAI's request. A kind that only a later release knows
    takes nothing.
    """
    known = KINDS.get(kind)
    if known is None:
        return NO_EXTRAS
    return of_host(settings.get("base_url", "")) if known.extras is None else known.extras


def is_mock(kind: str) -> bool:
    return kind in KINDS and KINDS[kind].in_process


def reason_for_no_key(kind: str) -> str:
    """Return it as the end of a sentence; "" for a kind that takes one."""
    return KINDS[kind].no_key_because if kind in KINDS else ""


def takes_key(kind: str) -> bool:
    """A kind that only a later release knows may take one."""
    return kind not in KINDS or KINDS[kind].has_key
