// The `openai` package against the gateway, before its own vendor and before the other one.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import * as z from "zod";
import { KEY, URL, VENDORS, failover, other, route, thrown, upstreamCalls } from "./suite.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0, timeout: 20_000 });
const completions = client.chat.completions;
const messages = [{ role: "user", content: "Where is my order?" }];
const Order = z.object({ number: z.int(), status: z.string(), items: z.array(z.string()) });

const tool = (name, field) => ({
  type: "function",
  function: {
    name,
    description: `Looks up ${name}.`,
    parameters: { type: "object", properties: { [field]: { type: "string" } }, required: [field] },
  },
});
const tools = [tool("get_weather", "city"), tool("get_time", "zone")];

for (const vendor of VENDORS) {
  const model = `to-${vendor}`;

  test(`${vendor}: chat answers with usage and a finish reason`, async () => {
    const reply = await completions.create({ model, messages });
    assert.match(reply.choices[0].message.content, /Where is my order\?/);
    assert.equal(reply.choices[0].finish_reason, "stop");
    assert.ok(reply.usage.total_tokens > 0);
  });

  test(`${vendor}: a stream says what the whole reply says, with usage only when asked`, async () => {
    const whole = await completions.create({ model, messages });
    for (const asked of [false, true]) {
      const options = asked ? { stream_options: { include_usage: true } } : {};
      let text = "";
      const usages = [];
      const finishes = [];
      for await (const chunk of await completions.create({ model, messages, stream: true, ...options })) {
        text += chunk.choices[0]?.delta?.content ?? "";
        if (chunk.usage) usages.push(chunk.usage);
        if (chunk.choices[0]?.finish_reason) finishes.push(chunk.choices[0].finish_reason);
      }
      assert.equal(text, whole.choices[0].message.content);
      assert.deepEqual(finishes, ["stop"]);
      assert.equal(usages.length, asked ? 1 : 0);
    }
  });

  test(`${vendor}: parallel tool calls and their results keep their ids`, async () => {
    const turns = [{ role: "user", content: "tool:get_weather and tool:get_time" }];
    const reply = await completions.create({ model, messages: turns, tools });
    const calls = reply.choices[0].message.tool_calls;
    assert.deepEqual(calls.map((call) => call.function.name), ["get_weather", "get_time"]);
    turns.push(reply.choices[0].message);
    for (const call of calls) turns.push({ role: "tool", tool_call_id: call.id, content: call.function.name });
    const next = await completions.create({ model, messages: turns, tools });
    assert.equal(next.choices[0].finish_reason, "stop");
  });

  test(`${vendor}: streamed tool calls come out whole`, async () => {
    const turns = [{ role: "user", content: "tool:get_weather and tool:get_time" }];
    const stream = completions.stream({ model, messages: turns, tools });
    const calls = (await stream.finalChatCompletion()).choices[0].message.tool_calls;
    assert.deepEqual(calls.map((call) => Object.keys(JSON.parse(call.function.arguments))), [["city"], ["zone"]]);
  });

  test(`${vendor}: parse returns what the schema says`, async () => {
    const reply = await completions.parse({ model, messages, response_format: zodResponseFormat(Order, "order") });
    assert.ok(Order.parse(reply.choices[0].message.parsed));
  });

  test(`${vendor}: response headers say who answered`, async () => {
    const { response, request_id } = await completions.create({ model, messages }).withResponse();
    assert.ok(response.headers.get("x-outlast-target").startsWith(`${vendor}/`));
    assert.equal(response.headers.get("x-outlast-attempts"), "1");
    assert.equal(request_id, response.headers.get("x-outlast-request-id"));
  });

  test(`${vendor}: exhaustion is not multiplied by the package's own retries`, async () => {
    const name = route("openai", vendor, "503");
    const error = await thrown(() => completions.create({ model: name, messages }, { maxRetries: 2 }));
    assert.ok(error instanceof OpenAI.InternalServerError, error);
    assert.equal(error.headers.get("x-should-retry"), "false");
    const calls = await upstreamCalls(name);
    assert.ok(calls.length >= 1 && calls.length <= 2, `${calls.length} upstream calls`);
  });

  test(`${vendor}: a rate limit everywhere is a RateLimitError`, async () => {
    const error = await thrown(() => completions.create({ model: route("openai", vendor, "429"), messages }));
    assert.ok(error instanceof OpenAI.RateLimitError, error);
  });

  test(`${vendor}: the client's own timeout is an APIConnectionTimeoutError`, async () => {
    const work = () => completions.create({ model: route("openai", vendor, "hang-client"), messages }, { timeout: 400 });
    assert.ok((await thrown(work)) instanceof OpenAI.APIConnectionTimeoutError);
  });

  for (const fault of ["cut-reset", "cut-close", "cut-eof", "no-terminal", "error-event", "stall"]) {
    test(`${vendor}: a stream broken by ${fault} throws after what came`, async () => {
      let text = "";
      const error = await thrown(async () => {
        const stream = await completions.create({ model: route("openai", vendor, fault), messages, stream: true });
        for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
      });
      assert.ok(error instanceof OpenAI.APIError, error);
      assert.ok(text.length > 0);
    });
  }

  for (const fault of ["503", "429", "reset", "hang", "dead"]) {
    test(`${vendor}: a primary dead by ${fault} is invisible`, async () => {
      const call = completions.create({ model: failover("openai", vendor, fault), messages });
      const { data, response } = await call.withResponse();
      assert.match(data.choices[0].message.content, /Where is my order\?/);
      assert.ok(response.headers.get("x-outlast-target").startsWith(`${other(vendor)}/`));
      assert.ok(response.headers.get("x-outlast-fallback-reason"));
    });
  }

  test(`${vendor}: a stream whose primary dies before output is whole`, async () => {
    const model = failover("openai", vendor, "error-first");
    const final = await completions.stream({ model, messages }).finalChatCompletion();
    assert.equal(final.choices[0].finish_reason, "stop");
  });
}

test("a wrong key is an AuthenticationError", async () => {
  const error = await thrown(() => client.withOptions({ apiKey: "sk-wrong" }).chat.completions.create({ model: "to-openai", messages }));
  assert.ok(error instanceof OpenAI.AuthenticationError, error);
});

test("an unknown model is a NotFoundError", async () => {
  const error = await thrown(() => completions.create({ model: "no-such-route", messages }));
  assert.ok(error instanceof OpenAI.NotFoundError, error);
  assert.equal(error.code, "model_not_found");
});

test("an invalid request is a BadRequestError", async () => {
  const error = await thrown(() => completions.create({ model: "to-openai", messages: [] }));
  assert.ok(error instanceof OpenAI.BadRequestError, error);
});

test("a body over the limit is a 413", async () => {
  const content = "x".repeat(3_000_000);
  const error = await thrown(() => completions.create({ model: "to-openai", messages: [{ role: "user", content }] }));
  assert.equal(error.status, 413);
});

test("the models are the routes", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("to-openai") && names.includes("to-anthropic"));
});
