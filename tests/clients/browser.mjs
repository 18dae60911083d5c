// The same clients in a page: esbuild bundles this file, and the page calls `run`.

import { stream } from "./stream.mjs";
import { use } from "./use.mjs";

const AT_ONCE = 4; // Chromium opens six connections to a host, and stopping needs some, too

// Promises that the AI SDK keeps beside the stream are rejected, too, and nothing awaits them.
window.addEventListener("unhandledrejection", (event) => event.preventDefault());

window.run = async (tasks) => {
  const shown = [];
  async function work() {
    for (let task = tasks.shift(); task; task = tasks.shift()) {
      shown.push(await (task.scenario ? stream(task) : use(task)));
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return shown;
};
