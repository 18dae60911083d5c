/** A gateway that a test scripts: a real server, which keeps what it was asked. */
import { once } from "node:events";
import { createServer } from "node:http";

export const FRAME = 'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n';
export const STOP = 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n';
export const DONE = "data: [DONE]\n\n";
export const CHAT = "/v1/chat/completions";

/** Listen until the test `t` ends. `answer(reply, call, number)` answers the chat requests. */
export async function gateway(t, answer = whole, others = () => false) {
  const calls = [];
  const waiting = [];
  const server = createServer((request, reply) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => {
      const { method, url, headers } = request;
      const call = { method, url, headers, body };
      calls.push(call);
      for (const one of waiting) one();
      if (others(reply, call)) return;
      if (url === CHAT) answer(reply, call, calls.filter((one) => one.url === CHAT).length);
      else json(reply, 200, {});
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const baseUrl = `http://127.0.0.1:${server.address().port}`;
  return {
    baseUrl,
    calls,
    chats: () => calls.filter((call) => call.url === CHAT),
    cancels: () => calls.filter((call) => call.url.endsWith("/cancel")),
    /** Resolve once `enough()` holds, which is asked after each call. */
    until: (enough) =>
      new Promise((resolve) => {
        const look = () => enough() && resolve();
        waiting.push(look);
        look();
      }),
  };
}

export function json(reply, status, body, headers = {}) {
  reply.writeHead(status, { "content-type": "application/json", ...headers });
  reply.end(JSON.stringify(body));
}

export function refusal(reply, status, code, more = {}, headers = {}) {
  json(reply, status, { error: { message: `It is ${code}.`, type: "api_error", code, ...more } }, headers);
}

export function begin(reply, ...frames) {
  reply.writeHead(200, { "content-type": "text/event-stream", "x-request-id": "req-1" });
  for (const frame of frames) reply.write(frame);
}

export function whole(reply) {
  begin(reply, FRAME, STOP);
  reply.end(DONE);
}

/** Return a token source whose tokens are t1, t2 …, and which counts its calls. */
export function tokens(reply = { ttl: 900, sessionId: "s_1" }) {
  const getToken = async () => ({ token: `t${++getToken.calls}`, ...reply });
  getToken.calls = 0;
  return getToken;
}

/** Set the clock: `Date.now()` is its own until the test ends. */
export function clock(t) {
  const own = Date.now;
  let offset = 0;
  Date.now = () => own() + offset;
  t.after(() => (Date.now = own));
  return { forward: (seconds) => (offset += seconds * 1000) };
}

export async function collect(iterable) {
  const all = [];
  for await (const one of iterable) all.push(one);
  return all;
}
