"""Turns the genai-prices package (argv[1]: its unpacked wheel) into the catalogue that Outlast embeds, on stdout.

One array per model: [id, context window or null, dollars per million tokens for input, output, cache read or null,
cache write or null, patterns]. A pattern is an exact name; `x*`, `*x`, `*x*` match as they look; `x#` wants a date after
x. Prices by prompt length are represented by their base price, prices by date by the one in force on argv[2]. Models without a price for both
input and output tokens (embeddings, speech) are left out, and so is what a pattern cannot say; stderr names those.
"""

import datetime
import json
import re
import sys
import types

sys.path.insert(0, sys.argv[1])
stub = types.ModuleType("httpx2")  # only its updater needs the client, and we do not run that
stub.__getattr__ = lambda name: type(name, (), {})
sys.modules["httpx2"] = stub

from genai_prices.data import providers  # noqa: E402

AS_OF = datetime.datetime.fromisoformat(sys.argv[2]).replace(tzinfo=datetime.timezone.utc)
KEEP = (
    "anthropic azure baseten cerebras cohere deepseek fireworks google groq meta minimax mistral moonshotai novita openai "
    "openrouter ovhcloud perplexity together x-ai zai"
).split()


def patterns(clause, model):
    kind = type(clause).__name__
    if kind == "ClauseEquals":
        return [clause.equals]
    if kind == "ClauseStartsWith":
        return [clause.starts_with + "*"]
    if kind == "ClauseEndsWith":
        return ["*" + clause.ends_with]
    if kind == "ClauseContains":
        return [f"*{clause.contains}*"]
    if kind == "ClauseOr":
        return [pattern for part in clause.or_ for pattern in patterns(part, model)]
    if kind == "ClauseRegex":
        dated = re.fullmatch(r"\^((?:[\w/:-]|\\\.|\[-@\])+?)\\d(?:\{\d\}(?:-\\d\{2\})*)?\$?", clause.regex)
        if dated:
            prefix = dated.group(1).replace("\\.", ".")
            return [prefix.replace("[-@]", mark) + "#" for mark in ("-@" if "[-@]" in prefix else "-")]
    print(f"left out: {model}: {clause}", file=sys.stderr)
    return []


def number(price):
    price = getattr(price, "base", price)
    return None if price is None else float(price)


def row(model):
    prices = model.get_prices(AS_OF)
    get = lambda name: number(getattr(prices, name, None))  # noqa: E731
    if get("input_mtok") is None or get("output_mtok") is None:
        return None
    names = dict.fromkeys(name.lower() for name in patterns(model.match, model.id))
    names.pop(model.id.lower(), None)
    fields = [get("input_mtok"), get("output_mtok"), get("cache_read_mtok"), get("cache_write_mtok")]
    return [model.id, model.context_window, *(int(f) if f is not None and f == int(f) else f for f in fields), list(names)]


catalogue = {}
for provider in providers:
    if provider.id in KEEP:
        rows = [row(model) for model in provider.models]
        catalogue[provider.id] = [r for r in rows if r]
lines = ",\n".join(f"{json.dumps(name)}:{json.dumps(rows, separators=(',', ':'))}" for name, rows in catalogue.items())
print("{" + lines + "}")
