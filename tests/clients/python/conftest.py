"""What every test here has: clients that call the gateway, and the vendors' own logs.

The runner (`cargo xtask clients`) starts two fake vendors and the gateway and says where they are
in the environment. Its config names routes by a pattern, see `route` and `failover` below.
"""

import json
import os
import urllib.request

import anthropic
import openai
import pytest

URL = os.environ["OUTLAST_URL"]
KEY = os.environ["OUTLAST_KEY"]
VENDORS = {"openai": os.environ["OPENAI_VENDOR_URL"], "anthropic": os.environ["ANTHROPIC_VENDOR_URL"]}

# A healthy route to each vendor.
HEALTHY = ["to-openai", "to-anthropic"]


def route(client: str, vendor: str, fault: str) -> str:
    """A route of one target at `vendor` that always shows `fault`; nobody but `client` uses it."""
    return f"{client}-{vendor}-{fault}"


def failover(client: str, vendor: str, fault: str) -> str:
    """The same target first, then a healthy one at the other vendor."""
    return f"{client}-{vendor}-{fault}-then-good"


def other(vendor: str) -> str:
    return {"openai": "anthropic", "anthropic": "openai"}[vendor]


def upstream_calls(name: str) -> list:
    """The calls that any vendor saw for a target of this route, oldest first."""
    seen = []
    for url in VENDORS.values():
        with urllib.request.urlopen(f"{url}/fake/log") as reply:
            calls = json.load(reply)["calls"]
        seen += [call for call in calls if call["model"].split("~")[0] == name]
    return seen


@pytest.fixture
def openai_client():
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def anthropic_client():
    with anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, timeout=20) as client:
        yield client


# A red dot: the smallest PNG that is one.
PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJg"
    "gg=="
)
