// Runs published JavaScript clients in Node, from the folder whose node_modules has them
// (tests/clients/newest, older).
//
//     node run.mjs < {"tasks": [...]}
//
// A task with a `scenario` is one for stream.mjs, others are for use.mjs. Prints what they return,
// as one JSON object a line.

import { readFileSync } from "node:fs";
import { CLIENTS as STREAMED, stream } from "./stream.mjs";
import { CLIENTS as USED, use } from "./use.mjs";

const AT_ONCE = 8;

// Promises that the AI SDK keeps beside the stream are rejected, too, and nothing awaits them.
process.on("unhandledRejection", () => {});
const { tasks } = JSON.parse(readFileSync(0, "utf8"));
const streamed = { ...STREAMED };
const used = { ...USED };
if (tasks.some((task) => task.client === "@openai/agents")) {
  const agents = await import("./agents.mjs");
  streamed["@openai/agents"] = agents.streamAgents;
  used["@openai/agents"] = agents.Agents;
}
async function work() {
  for (let task = tasks.shift(); task; task = tasks.shift()) {
    const shown = await (task.scenario ? stream(task, streamed) : use(task, used));
    process.stdout.write(JSON.stringify(shown) + "\n");
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, work));
process.exit(0);
