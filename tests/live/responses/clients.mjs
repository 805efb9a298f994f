// openai-node's responses, and the AI SDK with its default OpenAI provider: one line of JSON for each thing that was tried.
// Run in a folder with both installed: node clients.mjs URL MODEL, the key in OPENAI_API_KEY.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';

const [, , baseURL, model] = process.argv;
const from = createRequire(`${process.cwd()}/package.json`);
const load = (name) => import(pathToFileURL(from.resolve(name)).href);
const OpenAI = (await load('openai')).default;
const { zodTextFormat } = await load('openai/helpers/zod');
const { createOpenAI } = await load('@ai-sdk/openai');
const { generateText, streamText, Output, tool, stepCountIs } = await load('ai');
const { z } = await load('zod');

const client = new OpenAI({ baseURL, maxRetries: 0, timeout: 600_000 });
const openai = createOpenAI({ baseURL });
const short = { model, temperature: 0 };
const input = 'What is the capital of France?';
const Town = z.object({ name: z.enum(['Paris', 'Rome']) });
const tide = {
  type: 'function', name: 'high_tide', description: 'When the tide is high', strict: true,
  parameters: { type: 'object', properties: { harbour: { type: 'string', maxLength: 40 } }, required: ['harbour'], additionalProperties: false },
};
const question = 'When is high tide in Aldersea?';
const tools = {
  high_tide: tool({
    description: 'When the tide is high',
    inputSchema: z.object({ harbour: z.string().max(40) }),
    strict: true,
    execute: async ({ harbour }) => `At nine in ${harbour}.`,
  }),
};
const quiet = { maxRetries: 0, temperature: 0, maxOutputTokens: 200 };
const must = ({ stepNumber }) => (stepNumber === 0 ? { toolChoice: 'required' } : { toolChoice: 'auto' });

const tried = {
  'openai create': async () => (await client.responses.create({ ...short, input })).output_text,
  'openai stream': async () => {
    const stream = client.responses.stream({ ...short, input });
    let text = '';
    for await (const event of stream) if (event.type === 'response.output_text.delta') text += event.delta;
    const final = await stream.finalResponse();
    return text === final.output_text && text;
  },
  'openai parse': async () =>
    (await client.responses.parse({ ...short, input, text: { format: zodTextFormat(Town, 'town') } })).output_parsed.name,
  'openai function': async () => {
    const first = await client.responses.create({ ...short, input: question, tools: [tide], tool_choice: 'required' });
    const call = first.output.find((item) => item.type === 'function_call');
    const output = { type: 'function_call_output', call_id: call.call_id, output: 'At nine.' };
    const second = await client.responses.create({ ...short, input: [output], previous_response_id: first.id, tools: [tide], max_output_tokens: 50 });
    return second.output_text || second.output[0].type;
  },
  'openai background': async () => {
    let response = await client.responses.create({ ...short, input, background: true, max_output_tokens: 24 });
    while (['queued', 'in_progress'].includes(response.status)) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      response = await client.responses.retrieve(response.id);
    }
    const items = await client.responses.inputItems.list(response.id);
    await client.responses.delete(response.id);
    return items.data.length === 1 && response.status;
  },
  'openai error': async () => {
    try {
      await client.responses.create({ ...short, input, truncation: 'some' });
    } catch (error) {
      return error.param;
    }
  },
  'ai generate': async () => (await generateText({ ...quiet, model: openai(model), prompt: input })).text,
  'ai stream': async () => {
    let text = '';
    for await (const piece of streamText({ ...quiet, model: openai(model), prompt: input }).textStream) text += piece;
    return text;
  },
  'ai object': async () =>
    (await generateText({ ...quiet, model: openai(model), prompt: input, output: Output.object({ schema: Town }) })).output.name,
  'ai function': async () => {
    const result = await generateText({ ...quiet, model: openai(model), prompt: question, tools, stopWhen: stepCountIs(3), prepareStep: must });
    return result.steps.length > 1 && result.steps[0].toolResults[0].output;
  },
  'ai function streamed': async () => {
    const result = streamText({ ...quiet, model: openai(model), prompt: question, tools, stopWhen: stepCountIs(3), prepareStep: must });
    for await (const _ of result.textStream);
    return (await result.steps)[0].toolResults[0].output;
  },
  'ai search': async () => {
    const search = { file_search: openai.tools.fileSearch({ vectorStoreIds: ['handbook'] }) };
    const result = await generateText({ ...quiet, model: openai(model), prompt: 'How many days of vacation are there?', tools: search });
    return result.text;
  },
  'ai error': async () => {
    try {
      await generateText({ ...quiet, model: openai('no-such-model'), prompt: input });
    } catch (error) {
      return String(error.statusCode);
    }
  },
};

for (const [name, attempt] of Object.entries(tried)) {
  let told;
  try {
    told = { name, gave: await attempt() };
  } catch (error) {
    told = { name, failed: String(error.stack ?? error).slice(0, 2000) };
  }
  console.log(JSON.stringify(told));
}
