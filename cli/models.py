"""weir models: the catalogue, with prices."""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import Any

from weir.aws.operator.records import state
from weir.operator.documents import ModelDocument, ModelName, check_catalogue, parsed
from weir.operator.known_models import load
from weir.projects.model_kinds import CHAT

from . import text
from .console import Console
from .deployment import CommandError
from .flags import Commands, checked_name, read_input
from .upstreams import address, advise_key


def add_to(commands: Commands) -> None:
    group = commands.group("models", "the catalogue: which models there are, and what they cost")
    group.command("list", list_models, "every model of the catalogue")
    show = group.command("show", show_model, "one model")
    show.add_argument("name", metavar="NAME")
    known = group.command(
        "known", list_known, "the list that comes with this release, to be added from"
    )
    known.add_argument(
        "filter", metavar="FILTER", nargs="?", default="", help="a part of the name, or provider"
    )
    add = group.command(
        "add",
        add_model,
        "copy a model of that list into the catalogue, with its provider; "
        "prices: docs/configuration.md",
    )
    add.add_argument("name", metavar="NAME", help="as in `weir models known`")
    add.add_argument(
        "--from",
        dest="known",
        metavar="KNOWN",
        help="copy this entry of the list, and call it NAME here",
    )
    add.add_argument(
        "--replace", action="store_true", help="even if it is there already: for its new price"
    )
    set_ = group.command("set", set_model, "make or replace a model from a JSON document")
    set_.add_argument("name", metavar="NAME")
    set_.add_argument(
        "--file",
        metavar="FILE",
        required=True,
        help="the document, - for stdin; `weir models known --json` shows what one looks like, "
        "docs/configuration.md how prices are written",
    )
    reset = group.command(
        "reset-worst-case",
        reset_worst_case,
        "reserve no more than the output cap again, for what `weir status` shows as above it",
    )
    reset.add_argument("candidate", metavar="UPSTREAM/MODEL")
    remove = group.command("remove", remove_model, "remove a model no project names", asks=True)
    remove.add_argument("name", metavar="NAME")


def reset_worst_case(console: Console, asked: argparse.Namespace) -> None:
    console.operator.reset_overrun(asked.candidate)
    told = f"The worst case of {asked.candidate} is its output cap again, within 5 seconds."
    console.show({"candidate": asked.candidate}, told)


def list_models(console: Console, _asked: argparse.Namespace) -> None:
    models = console.operator.catalogue()["models"]
    console.show({"data": models}, *_lines(models))
    if not models:
        say = console.command("models", "add", "NAME")
        console.note(f"There is none yet: {say} (names: {console.command('models', 'known')})")


def show_model(console: Console, asked: argparse.Namespace) -> None:
    _show(console, asked.name, console.operator.model(asked.name))


def list_known(console: Console, asked: argparse.Namespace) -> None:
    part = asked.filter.lower()
    found = {
        name: model.stored()
        for name, model in sorted(load().models.items())
        if part in name.lower() or part in (c.upstream for c in model.candidates)
    }
    if not found:
        say = console.command("models", "known")
        console.show(
            {"data": {}}, f"No known model is called {asked.filter!r}, nor its provider: {say}"
        )
        return
    console.show(
        {"data": found}, *_lines(found, last=("AS OF", lambda model: model.get("as_of", "")))
    )
    console.note(
        "Prices as of the date of each entry, some from third-party lists; check them against "
        "your contract. --json names the sources. To take one: "
        f"{console.command('models', 'add', 'NAME')}"
    )


def add_model(console: Console, asked: argparse.Namespace) -> None:
    name, origin = checked_name(ModelName, asked.name, "a model"), asked.known or asked.name
    known, there = load(), console.operator.catalogue()
    entry = known.models.get(origin)
    if entry is None:
        raise CommandError(
            f"{origin!r} is not in the list of this release. `weir models known` shows it; any "
            f"other model: {console.command('models', 'set', name, '--file', 'model.json')}"
        )
    entry = _without_taken_aliases(console, name, entry, there["models"])
    kept = there["models"].get(name)
    if kept and not asked.replace and {**entry.stored(), **state(kept)} != kept:
        raise CommandError(
            f"There is another model {name!r} already; --replace takes the list's entry."
        )
    needed = {
        candidate.upstream: known.upstreams[candidate.upstream].stored()
        for candidate in entry.candidates
    }
    # Before anything is written: a refused model shall not leave its provider behind.
    check_catalogue(
        {
            "upstreams": {**needed, **there["upstreams"]},
            "models": {**there["models"], name: entry.stored()},
        }
    )
    for upstream in needed:
        if upstream not in there["upstreams"]:
            made = console.operator.put_upstream(upstream, known.upstreams[upstream])
            console.note(f"Made the upstream {upstream}: {address(made)}.")
        elif there["upstreams"][upstream].get("base_url") != needed[upstream].get("base_url"):
            here = address(there["upstreams"][upstream])
            console.note(f"The upstream {upstream} is there already, and stays: {here}.")
    _show(console, name, console.operator.put_model(name, entry))
    for candidate in entry.candidates:
        advise_key(console, candidate.upstream, console.operator.upstream(candidate.upstream))


def _without_taken_aliases(
    console: Console, name: str, entry: ModelDocument, models: Mapping[str, Mapping[str, Any]]
) -> ModelDocument:
    owners = {
        spelled: other
        for other, model in models.items()
        if other != name
        for spelled in (other, *model["aliases"])
    }
    for alias in entry.aliases:
        if alias in owners:
            console.note(f"Without the alias {alias}: it is the model {owners[alias]} already.")
    return entry.model_copy(update={"aliases": [a for a in entry.aliases if a not in owners]})


def set_model(console: Console, asked: argparse.Namespace) -> None:
    name = checked_name(ModelName, asked.name, "a model")
    try:
        told = json.loads(read_input(asked.file))
    except ValueError as error:
        raise CommandError(f"{asked.file} is not JSON: {error}.") from None
    _show(console, name, console.operator.put_model(name, parsed(ModelDocument, told)))


def remove_model(console: Console, asked: argparse.Namespace) -> None:
    console.operator.model(asked.name)
    console.confirm(f"The model {asked.name!r} and its prices will be removed from the catalogue.")
    console.operator.remove_model(asked.name)
    console.show({"name": asked.name, "removed": True}, f"The model {asked.name!r} is removed.")


_Column = tuple[str, Callable[[Mapping[str, Any]], str]]
_STATE: _Column = ("", lambda model: text.off_text(model.get("killed")))


def _lines(models: Mapping[str, Mapping[str, Any]], last: _Column = _STATE) -> list[str]:
    head, cell = last
    rows = []
    for name, model in sorted(models.items()):
        first = model["candidates"][0]
        rows.append(
            (
                name,
                " ".join(candidate["upstream"] for candidate in model["candidates"]),
                text.usd_per_million(first["input_nano_usd"]),
                text.usd_per_million(first["output_nano_usd"]),
                model["context_tokens"],
                model["max_output_tokens"] or model["kind"],
                cell(model),
            )
        )
    heads = ("MODEL", "UPSTREAM", "USD/M IN", "USD/M OUT", "CONTEXT", "MAX OUTPUT", head)
    return text.table(heads, rows)


def _of_its_kind(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    if model.get("kind", CHAT) == CHAT:
        return [
            ("Max output", f"{model['max_output_tokens']} tokens"),
            ("Images", "yes" if model.get("image_max_tokens") else "refused"),
            ("If stopped", _charged_if_stopped(model)),
        ]
    dimensions = model.get("dimensions")
    return [("Dimensions", str(dimensions))] if dimensions else []


def _charged_if_stopped(model: Mapping[str, Any]) -> str:
    if model.get("hidden_reasoning", True):
        return "charged for all of the output cap: the model may reason unseen"
    return "charged for what it had said"


def _show(console: Console, name: str, model: Mapping[str, Any]) -> None:
    most = model.get("max_input_tokens")
    source = f"{model.get('source', 'not told')} {model.get('as_of', '')}"
    rows = [
        ("Model", name),
        ("Kind", model.get("kind", CHAT)),
        ("Aliases", ", ".join(model["aliases"]) or "none"),
        *(
            (
                "or by" if number else "Served by",
                f"{candidate['upstream']} as {candidate['model']}: USD for a million tokens "
                f"{text.usd_per_million(candidate['input_nano_usd'])} in, "
                f"{text.usd_per_million(candidate['cached_input_nano_usd'])} in from its cache, "
                f"{text.usd_per_million(candidate['output_nano_usd'])} out",
            )
            for number, candidate in enumerate(model["candidates"])
        ),
        ("Context", f"{model['context_tokens']} tokens"),
        *([("Max input", f"{most} tokens, to which the prices hold")] if most else []),
        *_of_its_kind(model),
        ("Allowed fields", ", ".join(model.get("allowed_fields") or ()) or "none"),
        ("Source", source.strip()),
        ("State", text.off_text(model.get("killed")) or "on"),
    ]
    console.show({"name": name, **model}, *text.aligned(rows))
