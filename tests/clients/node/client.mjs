// What OpenAI's own JavaScript client makes of the runtime: one function per case, each giving data that the
// test asserts on. `node client.mjs URL CASE` prints one JSON object; an error the case did not expect is
// printed as {"failed": ...}.
import OpenAI from "openai";

const [url, name] = process.argv.slice(2);
const model = "geography";
const FRANCE = [{ role: "user", content: "What is the capital of France?" }];
const CONTINENTS = [{ role: "user", content: "List the continents." }];
const LOOK_UP = {
  type: "function",
  function: {
    name: "look_up",
    parameters: {
      type: "object",
      properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["city"],
      additionalProperties: false,
    },
  },
};
const FORCED = { type: "function", function: { name: "look_up" } };

// When each attempt of the client began, in seconds.
const attempts = [];
const timed = (...request) => {
  attempts.push(performance.now() / 1000);
  return fetch(...request);
};
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "unused", maxRetries: 0, fetch: timed });

async function collected(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

async function refusal(promise) {
  try {
    await promise;
  } catch (error) {
    const { status, code, param, type } = error;
    const retryAfter = error.headers?.get("retry-after") ?? null;
    return { class: error.constructor.name, status, code, param, type, retryAfter };
  }
  return { class: "none" };
}

const cases = {
  async models() {
    const listed = await client.models.list();
    const one = await client.models.retrieve(model);
    return { listed: listed.data.map((entry) => entry.id), one: one.id };
  },

  async chat() {
    const answer = await client.chat.completions.create({ model, messages: FRANCE });
    const [{ message, finish_reason }] = answer.choices;
    return { content: message.content, finish_reason, usage: answer.usage };
  },

  async chat_stream() {
    const stream = await client.chat.completions.create({
      model,
      messages: CONTINENTS,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = await collected(stream);
    const choices = chunks.flatMap((chunk) => chunk.choices);
    return {
      roles: choices.map((choice) => choice.delta.role).filter(Boolean),
      content: choices.map((choice) => choice.delta.content ?? "").join(""),
      finish_reasons: choices.map((choice) => choice.finish_reason).filter(Boolean),
      usage: chunks.at(-1).usage,
    };
  },

  // The client's own accumulator is stricter than reading chunks.
  async chat_stream_helper() {
    const stream = client.chat.completions.stream({ model, messages: CONTINENTS });
    const final = await stream.finalChatCompletion();
    return { content: final.choices[0].message.content, finish_reason: final.choices[0].finish_reason };
  },

  async completion() {
    const answer = await client.completions.create({ model, prompt: FRANCE[0].content });
    return { text: answer.choices[0].text, finish_reason: answer.choices[0].finish_reason };
  },

  async completion_stream() {
    const prompt = CONTINENTS[0].content;
    const chunks = await collected(await client.completions.create({ model, prompt, stream: true }));
    return {
      text: chunks.map((chunk) => chunk.choices[0].text).join(""),
      finish_reason: chunks.at(-1).choices[0].finish_reason,
    };
  },

  async response() {
    const answer = await client.responses.create({ model, input: FRANCE[0].content });
    return { text: answer.output_text, status: answer.status, usage: answer.usage };
  },

  async response_stream() {
    const input = CONTINENTS[0].content;
    const events = await collected(await client.responses.create({ model, input, stream: true }));
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    return {
      first: events[0].type,
      last: events.at(-1).type,
      text: deltas.map((event) => event.delta).join(""),
      final: events.at(-1).response.output[0].content[0].text,
      numbers: events.map((event) => event.sequence_number),
    };
  },

  async response_chain() {
    const first = await client.responses.create({ model, input: FRANCE[0].content, store: true });
    const kept = await client.responses.retrieve(first.id);
    const next = await client.responses.create({
      model,
      input: "And of Italy?",
      previous_response_id: first.id,
    });
    await client.responses.delete(first.id);
    const gone = await refusal(client.responses.retrieve(first.id));
    return { kept: kept.output_text, previous: next.previous_response_id, status: next.status, gone };
  },

  async forced_tool() {
    const request = { model, messages: FRANCE, tools: [LOOK_UP], tool_choice: FORCED };
    const answer = await client.chat.completions.create(request);
    const [{ message, finish_reason }] = answer.choices;
    const [call] = message.tool_calls;
    return { finish_reason, name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  },

  async forced_tool_stream() {
    const request = { model, messages: FRANCE, tools: [LOOK_UP], tool_choice: FORCED };
    const final = await client.chat.completions.stream(request).finalChatCompletion();
    const [{ message, finish_reason }] = final.choices;
    const [call] = message.tool_calls;
    return { finish_reason, name: call.function.name, arguments: JSON.parse(call.function.arguments) };
  },

  async structured() {
    const schema = {
      type: "object",
      properties: { capital: { type: "string", enum: ["Paris", "Rome"] } },
      required: ["capital"],
      additionalProperties: false,
    };
    const answer = await client.chat.completions.create({
      model,
      messages: FRANCE,
      response_format: { type: "json_schema", json_schema: { name: "capital", schema, strict: true } },
    });
    return JSON.parse(answer.choices[0].message.content);
  },

  async bad_value() {
    return refusal(client.chat.completions.create({ model, messages: FRANCE, temperature: 9 }));
  },

  async unknown_field() {
    return refusal(client.chat.completions.create({ model, messages: FRANCE, reasoning_effort: "low" }));
  },

  async unknown_model() {
    return refusal(client.chat.completions.create({ model: "other", messages: FRANCE }));
  },

  async rate_limited() {
    return refusal(client.chat.completions.create({ model, messages: FRANCE }));
  },

  async retried() {
    const patient = client.withOptions({ maxRetries: 60 });
    const answer = await patient.chat.completions.create({ model, messages: FRANCE });
    return { content: answer.choices[0].message.content, attempts };
  },

  async aborted() {
    const stream = await client.chat.completions.create(
      { model, messages: CONTINENTS, stream: true, max_tokens: 100_000, ignore_eos: true },
      { headers: { "x-request-id": "npm-abort" } },
    );
    let chunks = 0;
    for await (const chunk of stream) {
      chunks += chunk.choices.length;
      stream.controller.abort();
    }
    return { chunks };
  },
};

try {
  console.log(JSON.stringify(await cases[name]()));
} catch (error) {
  console.log(JSON.stringify({ failed: `${error.constructor.name}: ${error.message}`, stack: error.stack }));
  process.exitCode = 1;
}
