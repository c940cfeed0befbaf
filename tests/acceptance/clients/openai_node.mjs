// The official Node client; it reads OPENAI_BASE_URL and OPENAI_API_KEY by itself.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const PROMPT = 'Say hello to the acceptance run.';
const WRONG_KEY = 'sk-acceptance-wrong-key';
const LIMITS = { maxRetries: 0, timeout: 60_000 };
const model = process.env.MODEL;
const embeddingModel = process.env.EMBEDDING_MODEL || model;
const messages = [{ role: 'user', content: PROMPT }];
const client = new OpenAI(LIMITS);

function expectText(text) {
  assert.ok(typeof text === 'string' && text.trim(), `expected some text, got ${JSON.stringify(text)}`);
}

function expectStream(parts, finishReason) {
  const pieces = parts.filter(Boolean);
  assert.ok(pieces.length > 1, `expected several pieces, got ${JSON.stringify(pieces)}`);
  expectText(pieces.join(''));
  assert.ok(['stop', 'length'].includes(finishReason), `the stream ended with ${finishReason}`);
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

function expectChatStream(chunks) {
  const choices = chunks.flatMap((chunk) => chunk.choices.slice(0, 1));
  const reasons = choices.map((choice) => choice.finish_reason).filter(Boolean);
  expectStream(choices.map((choice) => choice.delta.content), reasons.at(-1));
}

const checks = {
  async models() {
    const ids = [];
    for await (const listed of client.models.list()) ids.push(listed.id);
    assert.ok(ids.includes(model), `${model} is not among ${ids}`);
  },
  async chat() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 24 });
    expectText(answer.choices[0].message.content);
    assert.equal(answer.model, model);
    assert.ok(answer.usage.completion_tokens > 0);
  },
  async chat_stream() {
    const request = { model, messages, max_tokens: 24, stream: true };
    const chunks = await collect(await client.chat.completions.create(request));
    expectChatStream(chunks);
    assert.ok(chunks.every((chunk) => !chunk.usage), 'usage was sent that nobody had asked for');
  },
  async chat_stream_usage() {
    const options = { stream: true, stream_options: { include_usage: true } };
    const request = { model, messages, max_tokens: 24, ...options };
    const chunks = await collect(await client.chat.completions.create(request));
    expectChatStream(chunks);
    assert.ok(chunks.at(-1).usage.completion_tokens > 0);
  },
  async completion() {
    const answer = await client.completions.create({ model, prompt: PROMPT, max_tokens: 24 });
    expectText(answer.choices[0].text);
  },
  async completion_stream() {
    const request = { model, prompt: PROMPT, max_tokens: 24, stream: true };
    const chunks = await collect(await client.completions.create(request));
    const choices = chunks.flatMap((chunk) => chunk.choices.slice(0, 1));
    expectStream(choices.map((choice) => choice.text), choices.at(-1).finish_reason);
  },
  async embedding() {
    const answer = await client.embeddings.create({ model: embeddingModel, input: PROMPT });
    assert.ok(answer.data[0].embedding.length > 0);
    assert.ok(answer.data[0].embedding.every((number) => typeof number === 'number'));
  },
  async wrong_key() {
    const stranger = new OpenAI({ ...LIMITS, apiKey: WRONG_KEY });
    const error = await stranger.models.list().then(() => null, (reason) => reason);
    assert.ok(error instanceof OpenAI.AuthenticationError, `expected a refusal, got ${error}`);
    assert.equal(error.status, 401);
    const wanted = process.env.EXPECT_ERROR_CODE;
    if (wanted) assert.equal(error.code, wanted);
  },
  // At the second request at the latest there is no more for one key, and never anything for the other. The client comes
  // back by itself where that helps: it must not where it does not.
  async refusals() {
    const request = { model, messages, max_tokens: 24 };
    const hurried = new OpenAI({ ...LIMITS, apiKey: process.env.RATE_KEY });
    const twice = async () => [await hurried.chat.completions.create(request), await hurried.chat.completions.create(request)];
    const rate = await twice().then(() => null, (reason) => reason);
    assert.ok(rate instanceof OpenAI.RateLimitError, `expected a refusal, got ${rate}`);
    assert.equal(rate.code, 'rate_limit_exceeded');
    assert.ok(Number(rate.headers.get('retry-after-ms')) > 0);
    let asked = 0;
    const counting = (...call) => { asked += 1; return fetch(...call); };
    const poor = new OpenAI({ ...LIMITS, maxRetries: 2, apiKey: process.env.POOR_KEY, fetch: counting });
    const money = await poor.chat.completions.create(request).then(() => null, (reason) => reason);
    assert.ok(money instanceof OpenAI.RateLimitError, `expected a refusal, got ${money}`);
    assert.equal(money.code, 'insufficient_quota');
    assert.equal(asked, 1, `it asked ${asked} times`);
  },
};

const skipped = new Set((process.env.SKIP || '').split(','));
for (const [name, check] of Object.entries(checks)) {
  if (skipped.has(name)) {
    console.log(`skip ${name}`);
    continue;
  }
  try {
    await check();
    console.log(`ok ${name}`);
  } catch (error) {
    console.error(error);
    console.log(`FAIL ${name}: ${error.name}`);
    process.exitCode = 1;
  }
}
