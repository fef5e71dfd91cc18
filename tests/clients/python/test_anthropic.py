"""The `anthropic` package against the gateway, before its own vendor and before the other one."""

import asyncio
import time

import anthropic
import pytest
from conftest import HEALTHY, KEY, PNG, URL, failover, other, route, upstream_calls
from pydantic import BaseModel

VENDORS = ["openai", "anthropic"]
ASK = [{"role": "user", "content": "Where is my order?"}]
COMMON = {"max_tokens": 200, "system": "Be brief."}


def tool(name: str, field: str) -> dict:
    schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {"name": name, "description": f"Looks up {name}.", "input_schema": schema}


TOOLS = [tool("get_weather", "city"), tool("get_time", "zone")]


class Order(BaseModel):
    number: int
    status: str
    items: list[str]


def text_of(message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def calls_of(message) -> list:
    return [block for block in message.content if block.type == "tool_use"]


@pytest.mark.parametrize("model", HEALTHY)
def test_a_message_answers_with_usage_and_a_stop_reason(anthropic_client, model):
    reply = anthropic_client.messages.create(model=model, messages=ASK, **COMMON)
    assert reply.type == "message" and reply.role == "assistant"
    assert "Where is my order?" in text_of(reply)
    assert reply.stop_reason == "end_turn"
    assert reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0


@pytest.mark.parametrize("model", HEALTHY)
def test_a_conversation_of_several_turns_is_understood(anthropic_client, model):
    turns = ASK + [{"role": "assistant", "content": "It left on Monday."}, {"role": "user", "content": "And now?"}]
    assert "And now?" in text_of(anthropic_client.messages.create(model=model, messages=turns, **COMMON))


@pytest.mark.parametrize("model", HEALTHY)
def test_an_output_limit_ends_in_max_tokens(anthropic_client, model):
    assert anthropic_client.messages.create(model=model, messages=ASK, max_tokens=3).stop_reason == "max_tokens"


@pytest.mark.parametrize("model", HEALTHY)
def test_a_stream_says_what_the_whole_reply_says(anthropic_client, model):
    whole = anthropic_client.messages.create(model=model, messages=ASK, **COMMON)
    with anthropic_client.messages.stream(model=model, messages=ASK, **COMMON) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(whole) == text_of(final)
    assert final.stop_reason == "end_turn" and final.usage.output_tokens > 0


@pytest.mark.parametrize("model", HEALTHY)
def test_the_events_of_a_stream_come_in_their_order(anthropic_client, model):
    events = [event.type for event in anthropic_client.messages.create(model=model, messages=ASK, stream=True, **COMMON)]
    inner = [kind for kind in events if kind not in ("content_block_delta", "ping")]
    assert inner == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]


@pytest.mark.parametrize("model", HEALTHY)
def test_one_tool_is_called_and_its_result_read(anthropic_client, model):
    turns = [{"role": "user", "content": "Please use the tool."}]
    reply = anthropic_client.messages.create(model=model, messages=turns, tools=TOOLS, **COMMON)
    assert reply.stop_reason == "tool_use"
    [call] = calls_of(reply)
    assert call.name == "get_weather" and "city" in call.input

    result = {"type": "tool_result", "tool_use_id": call.id, "content": "17 degrees"}
    turns += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": [result]}]
    reply = anthropic_client.messages.create(model=model, messages=turns, tools=TOOLS, **COMMON)
    assert reply.stop_reason == "end_turn" and "17 degrees" in text_of(reply)


@pytest.mark.parametrize("model", HEALTHY)
def test_parallel_tool_calls_and_their_results_keep_their_ids(anthropic_client, model):
    turns = [{"role": "user", "content": "tool:get_weather and tool:get_time"}]
    reply = anthropic_client.messages.create(model=model, messages=turns, tools=TOOLS, **COMMON)
    calls = calls_of(reply)
    assert [call.name for call in calls] == ["get_weather", "get_time"] and len({call.id for call in calls}) == 2

    results = [{"type": "tool_result", "tool_use_id": call.id, "content": call.name} for call in calls]
    turns += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": results}]
    reply = anthropic_client.messages.create(model=model, messages=turns, tools=TOOLS, **COMMON)
    assert reply.stop_reason == "end_turn"


@pytest.mark.parametrize("model", HEALTHY)
def test_streamed_tool_calls_come_out_whole(anthropic_client, model):
    turns = [{"role": "user", "content": "tool:get_weather and tool:get_time"}]
    with anthropic_client.messages.stream(model=model, messages=turns, tools=TOOLS, **COMMON) as stream:
        calls = calls_of(stream.get_final_message())
    assert [call.name for call in calls] == ["get_weather", "get_time"]
    assert [list(call.input) for call in calls] == [["city"], ["zone"]]


@pytest.mark.parametrize("model", HEALTHY)
def test_tool_choice_is_kept(anthropic_client, model):
    named = {"type": "tool", "name": "get_time"}
    reply = anthropic_client.messages.create(model=model, messages=ASK, tools=TOOLS, tool_choice=named, **COMMON)
    assert [call.name for call in calls_of(reply)] == ["get_time"]
    none = {"type": "none"}
    reply = anthropic_client.messages.create(model=model, messages=ASK, tools=TOOLS, tool_choice=none, **COMMON)
    assert calls_of(reply) == []


@pytest.mark.parametrize("model", HEALTHY)
def test_parse_returns_the_pydantic_model(anthropic_client, model):
    reply = anthropic_client.messages.parse(model=model, messages=ASK, output_format=Order, **COMMON)
    assert isinstance(reply.parsed_output, Order)


@pytest.mark.parametrize("model", HEALTHY)
def test_a_forced_tool_returns_structured_output(anthropic_client, model):
    record = {"name": "record", "description": "Records the order.", "input_schema": Order.model_json_schema()}
    named = {"type": "tool", "name": "record"}
    reply = anthropic_client.messages.create(model=model, messages=ASK, tools=[record], tool_choice=named, **COMMON)
    Order.model_validate(calls_of(reply)[0].input)


@pytest.mark.parametrize("model", HEALTHY)
def test_an_image_is_accepted(anthropic_client, model):
    parts = [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        {"type": "text", "text": "What is this?"},
    ]
    reply = anthropic_client.messages.create(model=model, messages=[{"role": "user", "content": parts}], **COMMON)
    assert "What is this?" in text_of(reply)


def test_the_models_are_the_routes(anthropic_client):
    assert {"to-openai", "to-anthropic"} <= {model.id for model in anthropic_client.models.list()}


def test_a_bearer_token_is_as_good_as_the_key():
    with anthropic.Anthropic(base_url=URL, auth_token=KEY, max_retries=0) as client:
        assert text_of(client.messages.create(model="to-anthropic", messages=ASK, **COMMON))


@pytest.mark.parametrize("model", HEALTHY)
def test_the_async_client_works_too(model):
    async def talk():
        async with anthropic.AsyncAnthropic(base_url=URL, api_key=KEY, max_retries=0) as client:
            async with client.messages.stream(model=model, messages=ASK, **COMMON) as stream:
                return await stream.get_final_text()

    assert "Where is my order?" in asyncio.run(talk())


@pytest.mark.parametrize("vendor", VENDORS)
def test_response_headers_say_who_answered(anthropic_client, vendor):
    raw = anthropic_client.messages.with_raw_response.create(model=f"to-{vendor}", messages=ASK, **COMMON)
    assert raw.headers["x-outlast-target"].startswith(f"{vendor}/")
    assert raw.headers["x-outlast-attempts"] == "1"
    assert raw.parse()._request_id == raw.headers["x-outlast-request-id"]
    assert float(raw.headers["x-outlast-cost-usd"]) > 0


# Errors: each as the exception that the package's users already handle.


def test_a_wrong_key_raises_authentication_error(anthropic_client):
    with pytest.raises(anthropic.AuthenticationError) as raised:
        anthropic_client.with_options(api_key="sk-wrong").messages.create(model="to-anthropic", messages=ASK, **COMMON)
    assert raised.value.body["error"]["type"] == "authentication_error"


def test_an_unknown_model_raises_not_found_error(anthropic_client):
    with pytest.raises(anthropic.NotFoundError) as raised:
        anthropic_client.messages.create(model="no-such-route", messages=ASK, **COMMON)
    assert raised.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("model", HEALTHY)
def test_an_invalid_request_raises_bad_request_error(anthropic_client, model):
    with pytest.raises(anthropic.BadRequestError) as raised:
        anthropic_client.messages.create(model=model, messages=[], **COMMON)
    assert raised.value.body["error"]["type"] == "invalid_request_error"


def test_a_body_over_the_limit_raises_413(anthropic_client):
    with pytest.raises(anthropic.APIStatusError) as raised:
        turns = [{"role": "user", "content": "x" * 3_000_000}]
        anthropic_client.messages.create(model="to-anthropic", messages=turns, **COMMON)
    assert raised.value.status_code == 413
    assert raised.value.body["error"]["type"] == "request_too_large"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_rate_limit_everywhere_raises_rate_limit_error(anthropic_client, vendor):
    with pytest.raises(anthropic.RateLimitError) as raised:
        anthropic_client.messages.create(model=route("anthropic", vendor, "429"), messages=ASK, **COMMON)
    assert int(raised.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_context_overflow_raises_bad_request_error(anthropic_client, vendor):
    with pytest.raises(anthropic.BadRequestError):
        anthropic_client.messages.create(model=route("anthropic", vendor, "context"), messages=ASK, **COMMON)


@pytest.mark.parametrize("vendor", VENDORS)
def test_exhaustion_raises_internal_server_error_and_the_package_does_not_multiply_it(anthropic_client, vendor):
    name = route("anthropic", vendor, "503")
    with pytest.raises(anthropic.InternalServerError) as raised:
        anthropic_client.with_options(max_retries=2).messages.create(model=name, messages=ASK, **COMMON)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert 1 <= len(upstream_calls(name)) <= 2, "one attempt and at most one same-target retry"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_clients_own_timeout_raises_and_is_cancelled_upstream(anthropic_client, vendor):
    name = route("anthropic", vendor, "hang-client")
    with pytest.raises(anthropic.APITimeoutError):
        anthropic_client.with_options(timeout=0.4).messages.create(model=name, messages=ASK, **COMMON)
    assert len(upstream_calls(name)) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_silent_vendor_ends_in_an_error_within_the_deadline(anthropic_client, vendor):
    start = time.monotonic()
    with pytest.raises(anthropic.InternalServerError):
        anthropic_client.messages.create(model=route("anthropic", vendor, "hang"), messages=ASK, **COMMON)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("fault", ["cut-reset", "cut-close", "cut-eof", "no-terminal", "error-event", "stall"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_that_breaks_raises_after_what_came(anthropic_client, vendor, fault):
    text, kinds = "", []
    with pytest.raises(anthropic.APIError):
        model = route("anthropic", vendor, fault)
        for event in anthropic_client.messages.create(model=model, messages=ASK, stream=True, **COMMON):
            kinds.append(event.type)
            if event.type == "content_block_delta":
                text += event.delta.text
    assert text and "message_stop" not in kinds


@pytest.mark.parametrize("vendor", VENDORS)
def test_half_a_tool_call_never_reaches_the_client(anthropic_client, vendor):
    kinds = []
    with pytest.raises(anthropic.APIError):
        model = route("anthropic", vendor, "cut-tool")
        for event in anthropic_client.messages.create(model=model, messages=ASK, tools=TOOLS, stream=True, **COMMON):
            kinds.append(event.type)
    assert "content_block_delta" not in kinds


# Failover: the other vendor answers and the package does not notice.


@pytest.mark.parametrize("fault", ["503", "429", "auth", "reset", "hang", "empty", "malformed", "dead"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_dead_primary_is_invisible(anthropic_client, vendor, fault):
    name = failover("anthropic", vendor, fault)
    raw = anthropic_client.messages.with_raw_response.create(model=name, messages=ASK, **COMMON)
    assert "Where is my order?" in text_of(raw.parse())
    assert raw.headers["x-outlast-target"].startswith(f"{other(vendor)}/")
    assert int(raw.headers["x-outlast-attempts"]) >= 2
    assert raw.headers["x-outlast-fallback-reason"]


@pytest.mark.parametrize("fault", ["503", "error-first", "hang", "cut-first"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_whose_primary_dies_before_output_is_whole(anthropic_client, vendor, fault):
    with anthropic_client.messages.stream(model=failover("anthropic", vendor, fault), messages=ASK, **COMMON) as stream:
        final = stream.get_final_message()
    assert "Where is my order?" in text_of(final) and final.stop_reason == "end_turn"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_structured_reply_that_breaks_its_schema_comes_from_the_next_target(anthropic_client, vendor):
    name = failover("anthropic", vendor, "schema-drift")
    reply = anthropic_client.messages.parse(model=name, messages=ASK, output_format=Order, **COMMON)
    assert isinstance(reply.parsed_output, Order)
