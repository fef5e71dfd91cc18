"""The `openai` package against the gateway, before its own vendor and before the other one."""

import asyncio
import json
import time

import openai
import pytest
from conftest import HEALTHY, KEY, PNG, URL, failover, other, route, upstream_calls
from pydantic import BaseModel

VENDORS = ["openai", "anthropic"]
ASK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is my order?"}]


def tool(name: str, field: str) -> dict:
    schema = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {"type": "function", "function": {"name": name, "description": f"Looks up {name}.", "parameters": schema}}


TOOLS = [tool("get_weather", "city"), tool("get_time", "zone")]


class Order(BaseModel):
    number: int
    status: str
    items: list[str]


@pytest.mark.parametrize("model", HEALTHY)
def test_chat_answers_with_usage_and_a_finish_reason(openai_client, model):
    reply = openai_client.chat.completions.create(model=model, messages=ASK)
    assert "Where is my order?" in reply.choices[0].message.content
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.prompt_tokens > 0 and reply.usage.completion_tokens > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("model", HEALTHY)
def test_a_conversation_of_several_turns_is_understood(openai_client, model):
    turns = ASK + [{"role": "assistant", "content": "It left on Monday."}, {"role": "user", "content": "And now?"}]
    reply = openai_client.chat.completions.create(model=model, messages=turns)
    assert "And now?" in reply.choices[0].message.content


@pytest.mark.parametrize("model", HEALTHY)
def test_an_output_limit_ends_in_length(openai_client, model):
    reply = openai_client.chat.completions.create(model=model, messages=ASK, max_completion_tokens=3)
    assert reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize("model", HEALTHY)
def test_a_stream_says_what_the_whole_reply_says(openai_client, model):
    whole = openai_client.chat.completions.create(model=model, messages=ASK)
    chunks = list(openai_client.chat.completions.create(model=model, messages=ASK, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == whole.choices[0].message.content
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason] == ["stop"]
    assert all(chunk.usage is None for chunk in chunks), "usage was not asked for"
    assert all(chunk.choices for chunk in chunks), "a chunk without choices carries usage"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("model", HEALTHY)
def test_a_stream_ends_with_usage_when_asked(openai_client, model):
    options = {"include_usage": True}
    chunks = list(openai_client.chat.completions.create(model=model, messages=ASK, stream=True, stream_options=options))
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 0
    assert all(chunk.usage is None for chunk in chunks[:-1])


@pytest.mark.parametrize("model", HEALTHY)
def test_one_tool_is_called_and_its_result_read(openai_client, model):
    turns = ASK + [{"role": "user", "content": "Please use the tool."}]
    reply = openai_client.chat.completions.create(model=model, messages=turns, tools=TOOLS)
    assert reply.choices[0].finish_reason == "tool_calls"
    [call] = reply.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and "city" in json.loads(call.function.arguments)

    turns += [reply.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "17 degrees"}]
    reply = openai_client.chat.completions.create(model=model, messages=turns, tools=TOOLS)
    assert reply.choices[0].finish_reason == "stop" and "17 degrees" in reply.choices[0].message.content


@pytest.mark.parametrize("model", HEALTHY)
def test_parallel_tool_calls_and_their_results_keep_their_ids(openai_client, model):
    turns = [{"role": "user", "content": "tool:get_weather and tool:get_time"}]
    reply = openai_client.chat.completions.create(model=model, messages=turns, tools=TOOLS)
    calls = reply.choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert len({call.id for call in calls}) == 2

    turns += [reply.choices[0].message]
    turns += [{"role": "tool", "tool_call_id": call.id, "content": call.function.name} for call in calls]
    reply = openai_client.chat.completions.create(model=model, messages=turns, tools=TOOLS)
    assert reply.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", HEALTHY)
def test_streamed_tool_calls_come_out_whole(openai_client, model):
    turns = [{"role": "user", "content": "tool:get_weather and tool:get_time"}]
    with openai_client.chat.completions.stream(model=model, messages=turns, tools=TOOLS) as stream:
        for _ in stream:
            pass
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert [call.function.name for call in calls] == ["get_weather", "get_time"]
    assert [list(json.loads(call.function.arguments)) for call in calls] == [["city"], ["zone"]]


@pytest.mark.parametrize("model", HEALTHY)
def test_tool_choice_is_kept(openai_client, model):
    named = {"type": "function", "function": {"name": "get_time"}}
    reply = openai_client.chat.completions.create(model=model, messages=ASK, tools=TOOLS, tool_choice=named)
    assert [call.function.name for call in reply.choices[0].message.tool_calls] == ["get_time"]
    reply = openai_client.chat.completions.create(model=model, messages=ASK, tools=TOOLS, tool_choice="none")
    assert not reply.choices[0].message.tool_calls


@pytest.mark.parametrize("model", HEALTHY)
def test_parse_returns_the_pydantic_model(openai_client, model):
    reply = openai_client.chat.completions.parse(model=model, messages=ASK, response_format=Order)
    assert isinstance(reply.choices[0].message.parsed, Order)


@pytest.mark.parametrize("model", HEALTHY)
def test_a_streamed_structured_reply_parses(openai_client, model):
    with openai_client.chat.completions.stream(model=model, messages=ASK, response_format=Order) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Order)


@pytest.mark.parametrize("model", HEALTHY)
def test_an_image_is_accepted(openai_client, model):
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    reply = openai_client.chat.completions.create(model=model, messages=[{"role": "user", "content": parts}])
    assert "What is this?" in reply.choices[0].message.content


def test_the_models_are_the_routes(openai_client):
    names = [model.id for model in openai_client.models.list()]
    assert {"to-openai", "to-anthropic"} <= set(names)


@pytest.mark.parametrize("model", HEALTHY)
def test_the_async_client_works_too(model):
    async def talk():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as client:
            stream = await client.chat.completions.create(model=model, messages=ASK, stream=True)
            text = [choice.delta.content or "" async for chunk in stream for choice in chunk.choices]
            return "".join(text)

    assert "Where is my order?" in asyncio.run(talk())


@pytest.mark.parametrize("vendor", VENDORS)
def test_response_headers_say_who_answered(openai_client, vendor):
    raw = openai_client.chat.completions.with_raw_response.create(model=f"to-{vendor}", messages=ASK)
    assert raw.headers["x-outlast-target"].startswith(f"{vendor}/")
    assert raw.headers["x-outlast-attempts"] == "1"
    assert raw.headers["x-outlast-request-id"] and raw.parse()._request_id == raw.headers["x-outlast-request-id"]
    assert float(raw.headers["x-outlast-cost-usd"]) > 0
    assert "x-outlast-fallback-reason" not in raw.headers and "x-outlast-degraded" not in raw.headers


# Errors: each as the exception that the package's users already handle.


def test_a_wrong_key_raises_authentication_error(openai_client):
    with pytest.raises(openai.AuthenticationError) as raised:
        openai_client.with_options(api_key="sk-wrong").chat.completions.create(model="to-openai", messages=ASK)
    assert raised.value.code and raised.value.body["message"]


def test_an_unknown_model_raises_not_found_error(openai_client):
    with pytest.raises(openai.NotFoundError) as raised:
        openai_client.chat.completions.create(model="no-such-route", messages=ASK)
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("model", HEALTHY)
def test_an_invalid_request_raises_bad_request_error(openai_client, model):
    with pytest.raises(openai.BadRequestError) as raised:
        openai_client.chat.completions.create(model=model, messages=[])
    assert raised.value.type == "invalid_request_error"


def test_a_body_over_the_limit_raises_413(openai_client):
    with pytest.raises(openai.APIStatusError) as raised:
        openai_client.chat.completions.create(model="to-openai", messages=[{"role": "user", "content": "x" * 3_000_000}])
    assert raised.value.status_code == 413


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_rate_limit_everywhere_raises_rate_limit_error(openai_client, vendor):
    with pytest.raises(openai.RateLimitError) as raised:
        openai_client.chat.completions.create(model=route("openai", vendor, "429"), messages=ASK)
    assert int(raised.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_context_overflow_raises_bad_request_error(openai_client, vendor):
    with pytest.raises(openai.BadRequestError) as raised:
        openai_client.chat.completions.create(model=route("openai", vendor, "context"), messages=ASK)
    assert raised.value.code == "context_length_exceeded"


@pytest.mark.parametrize("vendor", VENDORS)
def test_exhaustion_raises_internal_server_error_and_the_package_does_not_multiply_it(openai_client, vendor):
    name = route("openai", vendor, "503")
    with pytest.raises(openai.InternalServerError) as raised:
        openai_client.with_options(max_retries=2).chat.completions.create(model=name, messages=ASK)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert 1 <= len(upstream_calls(name)) <= 2, "one attempt and at most one same-target retry"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_clients_own_timeout_raises_and_is_cancelled_upstream(openai_client, vendor):
    name = route("openai", vendor, "hang-client")
    with pytest.raises(openai.APITimeoutError):
        openai_client.with_options(timeout=0.4).chat.completions.create(model=name, messages=ASK)
    assert len(upstream_calls(name)) == 1


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_silent_vendor_ends_in_an_error_within_the_deadline(openai_client, vendor):
    start = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        openai_client.chat.completions.create(model=route("openai", vendor, "hang"), messages=ASK)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("fault", ["cut-reset", "cut-close", "cut-eof", "no-terminal", "error-event", "stall"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_that_breaks_raises_after_what_came(openai_client, vendor, fault):
    stream = openai_client.chat.completions.create(model=route("openai", vendor, fault), messages=ASK, stream=True)
    text, finish = "", None
    with pytest.raises(openai.APIError):
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = finish or choice.finish_reason
    assert text and finish is None


@pytest.mark.parametrize("vendor", VENDORS)
def test_half_a_tool_call_never_reaches_the_client(openai_client, vendor):
    seen = []
    with pytest.raises(openai.APIError):
        for chunk in openai_client.chat.completions.create(
            model=route("openai", vendor, "cut-tool"), messages=ASK, tools=TOOLS, stream=True
        ):
            seen += [call for choice in chunk.choices for call in choice.delta.tool_calls or []]
    assert seen == []


# Failover: the other vendor answers and the package does not notice.


@pytest.mark.parametrize("fault", ["503", "429", "auth", "reset", "hang", "empty", "malformed", "dead"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_dead_primary_is_invisible(openai_client, vendor, fault):
    name = failover("openai", vendor, fault)
    raw = openai_client.chat.completions.with_raw_response.create(model=name, messages=ASK)
    assert "Where is my order?" in raw.parse().choices[0].message.content
    assert raw.headers["x-outlast-target"].startswith(f"{other(vendor)}/")
    assert int(raw.headers["x-outlast-attempts"]) >= 2
    assert raw.headers["x-outlast-fallback-reason"]


@pytest.mark.parametrize("fault", ["503", "error-first", "hang", "cut-first"])
@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_whose_primary_dies_before_output_is_whole(openai_client, vendor, fault):
    name = failover("openai", vendor, fault)
    chunks = list(openai_client.chat.completions.create(model=name, messages=ASK, stream=True))
    assert "Where is my order?" in "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_structured_reply_that_breaks_its_schema_comes_from_the_next_target(openai_client, vendor):
    name = failover("openai", vendor, "schema-drift")
    reply = openai_client.chat.completions.parse(model=name, messages=ASK, response_format=Order)
    assert isinstance(reply.choices[0].message.parsed, Order)
