/** Server-sent events, as the WHATWG standard's section "Interpreting an event stream" reads them. */
import assert from "node:assert/strict";
import test from "node:test";
import { load } from "./built.mjs";
import { collect } from "./gateway.mjs";

const { readEvents } = await load("weir-client");

const EXAMPLES = [
  ["an event of each line end", "data: a\n\ndata: b\r\rdata: c\r\n\r\n", ["a", "b", "c"]],
  ["line ends that are mixed", "data: a\r\n\ndata: b\n\r\ndata: c\r\n\n", ["a", "b", "c"]],
  ["the standard's stock ticker", "data: YHOO\ndata: +2\ndata: 10\n\n", ["YHOO\n+2\n10"]],
  [
    "the standard's comment, id and leading spaces",
    ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
    ["first event", "second event", " third event"],
  ],
  ["the standard's empty data", "data\n\ndata\ndata\n\ndata:", ["", "\n"]],
  ["the standard's optional space", "data:test\n\ndata: test\n\n", ["test", "test"]],
  ["no event without a blank line", "data: a\n\ndata: lost\n", ["a"]],
  ["fields that only begin like data", "database: x\ndat: y\ndata: z\n\n", ["z"]],
  ["an event without data", "event: ping\n\nid: 1\n\ndata: a\n\n", ["a"]],
  ["a byte order mark, at the start alone", "\ufeffdata: a\n\ndata: \ufeffb\n\n", ["a", "\ufeffb"]],
  ["letters of many bytes", "data: é € 𝄞\n\n", ["é € 𝄞"]],
  ["heartbeats", ": ping\n\ndata: a\n\n: ping\n\n", ["a"]],
];

function streamOf(...pieces) {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });
}

for (const [name, text, expected] of EXAMPLES) {
  test(`${name}: the same wherever the stream is cut`, async () => {
    const bytes = new TextEncoder().encode(text);
    for (let cut = 0; cut <= bytes.length; cut++) {
      for (const empty of [[], [new Uint8Array()]]) {
        const pieces = [bytes.subarray(0, cut), ...empty, bytes.subarray(cut)];
        assert.deepEqual(await collect(readEvents(streamOf(...pieces))), expected, `cut at ${cut}`);
      }
    }
    const single = Array.from(bytes, (byte) => Uint8Array.of(byte));
    assert.deepEqual(await collect(readEvents(streamOf(...single))), expected, "a byte at a time");
  });
}

test("an event that ends in CR is there before the next byte", async () => {
  const stream = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode("data: a\r\r")),
  });
  assert.equal((await readEvents(stream).next()).value, "a");
});

test("leaving the loop cancels the stream", async () => {
  let cancelled = false;
  const stream = new ReadableStream({
    pull: (controller) => controller.enqueue(new TextEncoder().encode("data: a\n\n")),
    cancel: () => void (cancelled = true),
  });
  for await (const _ of readEvents(stream)) break;
  assert.ok(cancelled);
});

test("an error of the stream is thrown", async () => {
  const stream = new ReadableStream({ pull: (controller) => controller.error(new Error("cut")) });
  await assert.rejects(collect(readEvents(stream)), /cut/);
});
