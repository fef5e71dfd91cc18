"""What a contract makes of a reply, as the official clients read it: both of them, streamed and not."""

import json

import anthropic
import openai
import pytest
from conftest import upstream_calls

VENDORS = ["openai", "anthropic"]
CLIENTS = ["openai", "anthropic"]
TOOL = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}


class Heard:
    """A reply, whichever client read it."""

    def __init__(self, text, tool_calls, finish, outlast, headers):
        self.text, self.tool_calls, self.finish = text, tool_calls, finish
        self.outlast, self.headers = outlast, headers


@pytest.fixture
def ask(openai_client, anthropic_client):
    """Asks through the client of that name, streamed or not, with `extra` in the body."""

    def openai_ask(model, text, stream, tools, extra, headers):
        more = {"tools": [{"type": "function", "function": {"name": t, "parameters": TOOL}} for t in tools]} if tools else {}
        create = openai_client.chat.completions.with_raw_response.create
        turns = [{"role": "user", "content": text}]
        raw = create(model=model, messages=turns, stream=stream, extra_body=extra, extra_headers=headers, **more)
        if not stream:
            reply = raw.parse()
            message = reply.choices[0].message
            noted = getattr(reply, "outlast", None)
            return Heard(message.content, message.tool_calls or [], reply.choices[0].finish_reason, noted, raw.headers)
        said, calls, finish, noted = "", [], None, None
        for chunk in raw.parse():
            noted = getattr(chunk, "outlast", None) or noted
            for choice in chunk.choices:
                said += choice.delta.content or ""
                calls += choice.delta.tool_calls or []
                finish = choice.finish_reason or finish
        return Heard(said, calls, finish, noted, raw.headers)

    def anthropic_ask(model, text, stream, tools, extra, headers):
        more = {"tools": [{"name": t, "input_schema": TOOL} for t in tools]} if tools else {}
        create = anthropic_client.messages.with_raw_response.create
        turns = [{"role": "user", "content": text}]
        raw = create(
            model=model, max_tokens=300, messages=turns, stream=stream, extra_body=extra, extra_headers=headers, **more
        )
        if not stream:
            reply = raw.parse()
            said = "".join(block.text for block in reply.content if block.type == "text")
            calls = [block for block in reply.content if block.type == "tool_use"]
            return Heard(said, calls, reply.stop_reason, getattr(reply, "outlast", None), raw.headers)
        said, calls, finish, noted = "", [], None, None
        for event in raw.parse():
            noted = getattr(event, "outlast", None) or noted
            if event.type == "content_block_start" and event.content_block.type == "tool_use":
                calls.append(event.content_block)
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                said += event.delta.text
            if event.type == "message_delta":
                finish = event.delta.stop_reason
        return Heard(said, calls, finish, noted, raw.headers)

    by_name = {"openai": openai_ask, "anthropic": anthropic_ask}

    def ask(client, model, text="Where is my order?", stream=False, tools=(), extra=None, headers=None):
        return by_name[client](model, text, stream, list(tools), extra or {}, headers or {})

    return ask


both = pytest.mark.parametrize("client", CLIENTS)
streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
at = pytest.mark.parametrize("vendor", VENDORS)


@both
@streamed
@at
def test_a_reply_of_other_fields_never_reaches_the_client(ask, client, stream, vendor):
    heard = ask(client, f"{client}-{vendor}-drift-under-contract", stream=stream)
    assert sorted(json.loads(heard.text)) == ["next_action", "risk", "summary"]
    assert "x-outlast-degraded" not in heard.headers


@both
@streamed
@at
def test_a_slip_of_form_is_mended_without_another_call(ask, client, stream, vendor):
    route = f"{client}-{vendor}-fenced-under-contract"
    heard = ask(client, route, stream=stream)
    assert sorted(json.loads(heard.text)) == ["next_action", "risk", "summary"]
    if not stream:
        assert len(upstream_calls(route)) == 1


@both
@streamed
@at
def test_a_write_becomes_a_plan_on_a_target_without_tools(ask, client, stream, vendor):
    heard = ask(client, f"{client}-{vendor}-plan", "tool:refund_order please", stream, tools=["refund_order"])
    assert heard.tool_calls == [] and heard.finish in ("stop", "end_turn")
    [intent] = heard.outlast["plan"]
    assert intent["tool"] == "refund_order" and "order_id" in intent["arguments"]
    assert intent["approval"] == "required"
    assert heard.outlast["tool_mode"] == "plan-only" and "tools" in heard.outlast["gave_up"]
    assert "refund_order" in heard.text, "the text names what was not done"


@both
@streamed
def test_a_template_answers_when_nobody_does_and_says_so(ask, client, stream):
    heard = ask(client, f"{client}-static", stream=stream)
    assert heard.text == "We are looking into it. Your order is safe."
    assert heard.outlast["gave_up"] == ["model"] and heard.outlast["degraded"] is True
    if not stream:
        assert heard.headers["x-outlast-degraded"] == "model"


@both
@streamed
def test_the_user_is_asked_before_a_lesser_way_is_taken(ask, client, stream):
    asked = ask(client, f"{client}-confirm", stream=stream)
    assert asked.text == "May a smaller model answer?"
    token = asked.outlast["confirm"]["token"]
    answered = ask(client, f"{client}-confirm", stream=stream, extra={"outlast": {"confirm": token}})
    assert "Where is my order?" in answered.text
    assert "route" in answered.outlast["gave_up"]


@both
def test_a_queued_request_reads_as_a_reply_and_says_where_to_ask(ask, client):
    heard = ask(client, f"{client}-queue")
    assert heard.text and heard.outlast["queue"]["poll_url"].startswith("/v1/queue/")
    assert heard.headers["location"] == heard.outlast["queue"]["poll_url"]


@both
def test_an_idempotency_key_replays_and_refuses_another_body(ask, client):
    headers = {"idempotency-key": f"order-17-{client}"}
    first = ask(client, "to-openai", "Is it there?", headers=headers)
    again = ask(client, "to-openai", "Is it there?", headers=headers)
    assert again.text == first.text and again.headers["x-outlast-replayed"] == "true"
    with pytest.raises((openai.UnprocessableEntityError, anthropic.UnprocessableEntityError)):
        ask(client, "to-openai", "Is it here?", headers=headers)


@both
@streamed
def test_a_safety_block_is_told_and_never_rerouted(ask, client, stream):
    route = f"{client}-openai-filtered-under-contract"
    with pytest.raises((openai.APIError, anthropic.APIError)):
        ask(client, route, stream=stream)
    assert upstream_calls(route) and not [call for call in upstream_calls(route) if call["dialect"] == "anthropic"]


@both
def test_an_unknown_field_of_the_outlast_object_is_named(ask, client):
    with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="surces"):
        ask(client, "to-openai", extra={"outlast": {"surces": []}})
