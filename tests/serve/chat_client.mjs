// Plain, streamed and refused completions by OpenAI's npm package; prints what came as JSON.
import OpenAI from "openai";

let requests = 0;
const counted = (...given) => {
  requests += 1;
  return fetch(...given);
};
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 2, fetch: counted });
const ask = (content, options = {}) =>
  client.chat.completions.create({ model: "qa", messages: [{ role: "user", content }], ...options });

const plain = (await ask("by node")).choices[0].message.content;
let streamed = "";
let pieces = 0;
for await (const chunk of await ask("stream of node", { stream: true })) {
  const text = chunk.choices[0]?.delta?.content ?? "";
  streamed += text;
  pieces += text ? 1 : 0;
}
requests = 0;
let refused = {};
try {
  await ask("refused", { n: 2 });
} catch (error) {
  refused = { status: error.status, param: error.param };
}
console.log(JSON.stringify({ plain, streamed, pieces, ...refused, requests }));
