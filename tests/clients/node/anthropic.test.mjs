// The `@anthropic-ai/sdk` package against the gateway, before its own vendor and before the other one.

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";
import assert from "node:assert/strict";
import { test } from "node:test";
import * as z from "zod";
import { KEY, URL, VENDORS, failover, other, route, thrown, upstreamCalls } from "./suite.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0, timeout: 20_000 });
const ask = { max_tokens: 200, system: "Be brief.", messages: [{ role: "user", content: "Where is my order?" }] };
const Order = z.object({ number: z.int(), status: z.string(), items: z.array(z.string()) });

const tool = (name, field) => ({
  name,
  description: `Looks up ${name}.`,
  input_schema: { type: "object", properties: { [field]: { type: "string" } }, required: [field] },
});
const tools = [tool("get_weather", "city"), tool("get_time", "zone")];

const textOf = (message) => message.content.map((block) => block.text ?? "").join("");
const callsOf = (message) => message.content.filter((block) => block.type === "tool_use");

for (const vendor of VENDORS) {
  const model = `to-${vendor}`;

  test(`${vendor}: a message answers with usage and a stop reason`, async () => {
    const reply = await client.messages.create({ model, ...ask });
    assert.match(textOf(reply), /Where is my order\?/);
    assert.equal(reply.stop_reason, "end_turn");
    assert.ok(reply.usage.input_tokens > 0 && reply.usage.output_tokens > 0);
  });

  test(`${vendor}: a stream says what the whole reply says`, async () => {
    const whole = await client.messages.create({ model, ...ask });
    const final = await client.messages.stream({ model, ...ask }).finalMessage();
    assert.equal(textOf(final), textOf(whole));
    assert.equal(final.stop_reason, "end_turn");
  });

  test(`${vendor}: parallel tool calls and their results keep their ids`, async () => {
    const turns = [{ role: "user", content: "tool:get_weather and tool:get_time" }];
    const reply = await client.messages.create({ model, ...ask, messages: turns, tools });
    assert.equal(reply.stop_reason, "tool_use");
    const calls = callsOf(reply);
    assert.deepEqual(calls.map((call) => call.name), ["get_weather", "get_time"]);
    const results = calls.map((call) => ({ type: "tool_result", tool_use_id: call.id, content: call.name }));
    turns.push({ role: "assistant", content: reply.content }, { role: "user", content: results });
    const next = await client.messages.create({ model, ...ask, messages: turns, tools });
    assert.equal(next.stop_reason, "end_turn");
  });

  test(`${vendor}: streamed tool calls come out whole`, async () => {
    const messages = [{ role: "user", content: "tool:get_weather and tool:get_time" }];
    const final = await client.messages.stream({ model, ...ask, messages, tools }).finalMessage();
    assert.deepEqual(callsOf(final).map((call) => Object.keys(call.input)), [["city"], ["zone"]]);
  });

  test(`${vendor}: parse returns what the schema says`, async () => {
    const output_config = { format: zodOutputFormat(Order) };
    const reply = await client.messages.parse({ model, ...ask, output_config });
    assert.ok(Order.parse(reply.parsed_output));
  });

  test(`${vendor}: response headers say who answered`, async () => {
    const { response, request_id } = await client.messages.create({ model, ...ask }).withResponse();
    assert.ok(response.headers.get("x-outlast-target").startsWith(`${vendor}/`));
    assert.equal(response.headers.get("x-outlast-attempts"), "1");
    assert.equal(request_id, response.headers.get("x-outlast-request-id"));
  });

  test(`${vendor}: exhaustion is not multiplied by the package's own retries`, async () => {
    const name = route("anthropic", vendor, "503");
    const error = await thrown(() => client.messages.create({ model: name, ...ask }, { maxRetries: 2 }));
    assert.ok(error instanceof Anthropic.InternalServerError, error);
    assert.equal(error.headers.get("x-should-retry"), "false");
    const calls = await upstreamCalls(name);
    assert.ok(calls.length >= 1 && calls.length <= 2, `${calls.length} upstream calls`);
  });

  test(`${vendor}: a rate limit everywhere is a RateLimitError`, async () => {
    const error = await thrown(() => client.messages.create({ model: route("anthropic", vendor, "429"), ...ask }));
    assert.ok(error instanceof Anthropic.RateLimitError, error);
  });

  test(`${vendor}: the client's own timeout is an APIConnectionTimeoutError`, async () => {
    const name = route("anthropic", vendor, "hang-client");
    const error = await thrown(() => client.messages.create({ model: name, ...ask }, { timeout: 400 }));
    assert.ok(error instanceof Anthropic.APIConnectionTimeoutError, error);
  });

  for (const fault of ["cut-reset", "cut-close", "cut-eof", "no-terminal", "error-event", "stall"]) {
    test(`${vendor}: a stream broken by ${fault} throws after what came`, async () => {
      let text = "";
      const kinds = [];
      const error = await thrown(async () => {
        const model = route("anthropic", vendor, fault);
        for await (const event of await client.messages.create({ model, ...ask, stream: true })) {
          kinds.push(event.type);
          text += event.delta?.text ?? "";
        }
      });
      assert.ok(error instanceof Anthropic.APIError, error);
      assert.ok(text.length > 0);
      assert.ok(!kinds.includes("message_stop"));
    });
  }

  for (const fault of ["503", "429", "reset", "hang", "dead"]) {
    test(`${vendor}: a primary dead by ${fault} is invisible`, async () => {
      const call = client.messages.create({ model: failover("anthropic", vendor, fault), ...ask });
      const { data, response } = await call.withResponse();
      assert.match(textOf(data), /Where is my order\?/);
      assert.ok(response.headers.get("x-outlast-target").startsWith(`${other(vendor)}/`));
      assert.ok(response.headers.get("x-outlast-fallback-reason"));
    });
  }

  test(`${vendor}: a stream whose primary dies before output is whole`, async () => {
    const final = await client.messages.stream({ model: failover("anthropic", vendor, "error-first"), ...ask }).finalMessage();
    assert.equal(final.stop_reason, "end_turn");
  });
}

test("a wrong key is an AuthenticationError", async () => {
  const error = await thrown(() => client.withOptions({ apiKey: "sk-wrong" }).messages.create({ model: "to-anthropic", ...ask }));
  assert.ok(error instanceof Anthropic.AuthenticationError, error);
});

test("an unknown model is a NotFoundError", async () => {
  const error = await thrown(() => client.messages.create({ model: "no-such-route", ...ask }));
  assert.ok(error instanceof Anthropic.NotFoundError, error);
});

test("an invalid request is a BadRequestError", async () => {
  const error = await thrown(() => client.messages.create({ model: "to-anthropic", ...ask, messages: [] }));
  assert.ok(error instanceof Anthropic.BadRequestError, error);
});

test("a body over the limit is a 413", async () => {
  const messages = [{ role: "user", content: "x".repeat(3_000_000) }];
  const error = await thrown(() => client.messages.create({ model: "to-anthropic", ...ask, messages }));
  assert.equal(error.status, 413);
});

test("the models are the routes", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("to-openai") && names.includes("to-anthropic"));
});
