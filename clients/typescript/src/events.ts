/**
 * Yields the data of each server-sent event, as the HTML standard reads a stream: wherever the bytes
 * are cut, with LF, CR or CRLF, comments, data of several lines and a byte order mark.
 * https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */
export async function* readEvents(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const reader = stream.getReader();
  const decoder = new TextDecoder(); // leaves a byte order mark out
  let rest = "";
  let data: string[] = [];
  let endedInCr = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // an event without its blank line is not one
      let text = decoder.decode(value, { stream: true });
      if (!text) continue;
      if (endedInCr && text[0] === "\n") text = text.slice(1); // of a CRLF that was cut
      endedInCr = text ? text.endsWith("\r") : false;
      const lines = (rest + text).split(/\r\n|\r|\n/);
      rest = lines.pop()!;
      for (const line of lines) {
        const field = /^data(?:: ?(.*))?$/s.exec(line);
        if (field) data.push(field[1] ?? "");
        else if (!line && data.length) {
          yield data.join("\n");
          data = [];
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined); // its reader has had enough
  }
}
