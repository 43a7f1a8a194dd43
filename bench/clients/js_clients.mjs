// The JavaScript side of the matrix of clients, as python_clients.py is the Python side.
//
//     node js_clients.mjs URL KEY [FEATURE ...]
//
// Runs in a folder with the node_modules of package.json. Prints one JSON object a line.
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import Anthropic from "@anthropic-ai/sdk";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

const [URL, KEY, ...only] = process.argv.slice(2);
const MODEL = "escultor";
const HELLO = "Say hello.", THINK = "Say hello, and think first.", FAIL = "Say hello; please fail with 429.";
const ONE = "What is the weather in Paris?", BOTH = "What is the weather in Paris and in Lima?";
const PERSON = "Who comes, and when?";
const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
const PICTURE = `data:image/png;base64,${PIXEL}`;
const Person = z.object({ name: z.string(), day: z.string() });
const PARAMETERS = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const FUNCTION = { name: "get_weather", description: "The weather of a city." };
const user = (content) => [{ role: "user", content }];
const parsed = (text) => (typeof text === "string" ? JSON.parse(text) : text);

function joined(pieces) {
  const held = pieces.filter(Boolean);
  if (held.length < 2) throw new Error(`the stream came in ${held.length} pieces`);
  return held.join("");
}

async function statusOf(ask) {
  try {
    await ask();
  } catch (error) {
    for (let each = error; each; each = each.cause ?? each.lastError)
      if (each.status ?? each.statusCode) return each.status ?? each.statusCode;
    throw error;
  }
  throw new Error("no error was raised");
}

async function rated(ask) {
  const id = `m-${randomUUID()}`;
  await ask({ "x-escultor-message": id, "x-escultor-subject": "maria" });
  const source = { kind: "end_user", id: "maria" };
  const event = { kind: "boolean", name: "thumb", value: true, target: id, id: `thumb-${id}`, source };
  const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
  const sent = { method: "POST", headers, body: JSON.stringify(event) };
  return (await fetch(`${URL}/v1/feedback`, sent)).status;
}

// A client's features from how it asks: `plain(key, text, headers)` and the rest of them.
function withErrors(plain, features) {
  return {
    plain: () => plain(KEY),
    ...features,
    error_401: () => statusOf(() => plain("sk-wrong")),
    error_429: () => statusOf(() => plain(KEY, FAIL)),
    feedback: () => rated((headers) => plain(KEY, HELLO, headers)),
  };
}

function openaiChat() {
  const client = (apiKey) => new OpenAI({ baseURL: `${URL}/v1`, apiKey, maxRetries: 0 });
  const chat = client(KEY).chat.completions;
  const tools = [{ type: "function", function: { ...FUNCTION, parameters: PARAMETERS } }];
  const calls = (message) => message.tool_calls.map((c) => [c.function.name, parsed(c.function.arguments)]);
  const plain = async (key, text = HELLO, headers = {}) => {
    const asked = { model: MODEL, messages: user(text) };
    return (await client(key).chat.completions.create(asked, { headers })).choices[0].message.content;
  };
  const ask = async (text, more) =>
    (await chat.create({ model: MODEL, messages: user(text), ...more })).choices[0].message;
  return withErrors(plain, {
    async stream() {
      const pieces = [];
      for await (const chunk of await chat.create({ model: MODEL, messages: user(HELLO), stream: true }))
        pieces.push(chunk.choices[0]?.delta?.content);
      return joined(pieces);
    },
    async tools() {
      const message = await ask(ONE, { tools });
      const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "sunny" };
      const messages = [...user(ONE), message, result];
      const said = await chat.create({ model: MODEL, messages, tools });
      return [calls(message), said.choices[0].message.content];
    },
    async tools_streamed() {
      const stream = chat.stream({ model: MODEL, messages: user(ONE), tools });
      return calls(await stream.finalMessage());
    },
    parallel: async () => calls(await ask(BOTH, { tools })),
    async structured() {
      const format = { response_format: zodResponseFormat(Person, "person") };
      const made = await chat.parse({ model: MODEL, messages: user(PERSON), ...format });
      return made.choices[0].message.parsed;
    },
    reasoning: async () => (await ask(THINK)).reasoning_content,
    picture: () =>
      plain(KEY, [{ type: "text", text: "What is this?" }, { type: "image_url", image_url: { url: PICTURE } }]),
  });
}

function openaiResponses() {
  const client = (apiKey) => new OpenAI({ baseURL: `${URL}/v1`, apiKey, maxRetries: 0 });
  const { responses } = client(KEY);
  const tools = [{ type: "function", ...FUNCTION, parameters: PARAMETERS, strict: null }];
  const calls = (made) =>
    made.output.filter((i) => i.type === "function_call").map((i) => [i.name, parsed(i.arguments)]);
  const plain = async (key, input = HELLO, headers = {}) =>
    (await client(key).responses.create({ model: MODEL, input }, { headers })).output_text;
  const ask = (input, more) => responses.create({ model: MODEL, input, ...more });
  return withErrors(plain, {
    async stream() {
      const pieces = [];
      for await (const event of await ask(HELLO, { stream: true }))
        if (event.type === "response.output_text.delta") pieces.push(event.delta);
      return joined(pieces);
    },
    async tools() {
      const made = await ask(ONE, { tools });
      const { call_id } = made.output.find((item) => item.type === "function_call");
      const result = [{ type: "function_call_output", call_id, output: "sunny" }];
      return [calls(made), (await ask(result, { tools, previous_response_id: made.id })).output_text];
    },
    tools_streamed: async () =>
      calls(await responses.stream({ model: MODEL, input: ONE, tools }).finalResponse()),
    parallel: async () => calls(await ask(BOTH, { tools })),
    structured: async () =>
      (await responses.parse({ model: MODEL, input: PERSON, text: { format: zodTextFormat(Person, "person") } }))
        .output_parsed,
    reasoning: async () =>
      (await ask(THINK)).output.find((item) => item.type === "reasoning").summary[0].text,
    picture: () =>
      plain(
        KEY,
        user([{ type: "input_text", text: "What is this?" }, { type: "input_image", image_url: PICTURE }]),
      ),
  });
}

function anthropic() {
  const client = (apiKey) => new Anthropic({ baseURL: URL, apiKey, maxRetries: 0 });
  const { messages } = client(KEY);
  const tools = [{ ...FUNCTION, input_schema: PARAMETERS }];
  const asked = (turns, more = {}) => ({ model: MODEL, max_tokens: 200, messages: turns, ...more });
  const calls = (made) => made.content.filter((b) => b.type === "tool_use").map((b) => [b.name, b.input]);
  const plain = async (key, text = HELLO, headers = {}) =>
    (await client(key).messages.create(asked(user(text)), { headers })).content[0].text;
  return withErrors(plain, {
    async stream() {
      const pieces = [];
      const stream = messages.stream(asked(user(HELLO)));
      stream.on("text", (text) => pieces.push(text));
      await stream.finalMessage();
      return joined(pieces);
    },
    async tools() {
      const made = await messages.create(asked(user(ONE), { tools }));
      const { id } = made.content.find((block) => block.type === "tool_use");
      const result = user([{ type: "tool_result", tool_use_id: id, content: "sunny" }]);
      const turns = [...user(ONE), { role: "assistant", content: made.content }, ...result];
      return [calls(made), (await messages.create(asked(turns, { tools }))).content[0].text];
    },
    tools_streamed: async () => calls(await messages.stream(asked(user(ONE), { tools })).finalMessage()),
    parallel: async () => calls(await messages.create(asked(user(BOTH), { tools }))),
    async structured() {
      const own = [{ name: "Person", description: "Who comes.", input_schema: z.toJSONSchema(Person) }];
      const choice = { tools: own, tool_choice: { type: "tool", name: "Person" } };
      return calls(await messages.create(asked(user(PERSON), choice)))[0][1];
    },
    reasoning: async () =>
      (await messages.create(asked(user(THINK)))).content.find((block) => block.type === "thinking").thinking,
    picture: () =>
      plain(
        KEY,
        [
          { type: "image", source: { type: "base64", media_type: "image/png", data: PIXEL } },
          { type: "text", text: "What is this?" },
        ],
      ),
  });
}

// The AI SDK, over a provider's model: `model(key, headers)`.
function aiSdk(model) {
  const tools = () => ({
    get_weather: tool({
      description: FUNCTION.description,
      inputSchema: z.object({ city: z.string() }),
      execute: async () => "sunny",
    }),
  });
  const own = { maxRetries: 0 };
  const calls = (steps) => steps.flatMap((step) => step.toolCalls.map((c) => [c.toolName, c.input]));
  const ask = (prompt, more) => generateText({ ...own, model: model(KEY), prompt, ...more });
  const agent = (prompt) => ask(prompt, { tools: tools(), stopWhen: stepCountIs(3) });
  const plain = async (key, prompt = HELLO, headers = {}) =>
    (await generateText({ ...own, model: model(key, headers), prompt })).text;
  return withErrors(plain, {
    async stream() {
      const pieces = [];
      for await (const text of streamText({ ...own, model: model(KEY), prompt: HELLO }).textStream)
        pieces.push(text);
      return joined(pieces);
    },
    async tools() {
      const made = await agent(ONE);
      return [calls(made.steps), made.text];
    },
    async tools_streamed() {
      const asked = { ...own, model: model(KEY), prompt: ONE, tools: tools(), stopWhen: stepCountIs(3) };
      return calls(await streamText(asked).steps);
    },
    parallel: async () => calls((await agent(BOTH)).steps),
    structured: async () =>
      (await generateObject({ ...own, model: model(KEY), schema: Person, prompt: PERSON })).object,
    reasoning: async () => (await ask(THINK)).reasoningText,
    async picture() {
      const parts = [{ type: "text", text: "What is this?" }, { type: "image", image: PIXEL }];
      return (await generateText({ ...own, model: model(KEY), messages: user(parts) })).text;
    },
  });
}

// This provider does not read reasoning from chat completions.
const withoutReasoning = ({ reasoning, ...features }) => features;
const provider = (create, more = {}) => (apiKey, headers) =>
  create({ baseURL: `${URL}/v1`, apiKey, headers, ...more });
const compatible = provider(createOpenAICompatible, {
  name: "escultor",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const openai = provider(createOpenAI), claude = provider(createAnthropic);
const CLIENTS = {
  "openai (JS), chat completions": ["openai", openaiChat()],
  "openai (JS), responses": ["openai", openaiResponses()],
  "anthropic (JS)": ["@anthropic-ai/sdk", anthropic()],
  "AI SDK openai()": ["@ai-sdk/openai", aiSdk((key, headers) => openai(key, headers)(MODEL))],
  "AI SDK openai.chat()": ["@ai-sdk/openai", withoutReasoning(aiSdk((key, headers) => openai(key, headers).chat(MODEL)))],
  "AI SDK openai-compatible": [
    "@ai-sdk/openai-compatible",
    aiSdk((key, headers) => compatible(key, headers)(MODEL)),
  ],
  "AI SDK anthropic()": ["@ai-sdk/anthropic", aiSdk((key, headers) => claude(key, headers)(MODEL))],
};

globalThis.AI_SDK_LOG_WARNINGS = false;
const { readFileSync } = await import("node:fs");
const versionOf = (name) => {
  const path = createRequire(import.meta.url).resolve.paths(name)[0];
  return JSON.parse(readFileSync(`${path}/${name}/package.json`, "utf8")).version;
};
for (const [client, [name, features]] of Object.entries(CLIENTS)) {
  const version = `${name} ${versionOf(name)}`;
  for (const [feature, run] of Object.entries(features)) {
    if (only.length && !only.includes(feature)) continue;
    const row = { client, version, feature };
    try {
      row.got = await run();
    } catch (error) {
      row.error = `${error.name}: ${error.message}`.slice(0, 600);
    }
    console.log(JSON.stringify(row));
  }
}
