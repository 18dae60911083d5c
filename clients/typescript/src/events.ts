/**
 * Yield the data of each server-sent event, as the WHATWG standard reads them: cut anywhere; lines
 * that end in CR, LF or both; comments; data of several lines; a byte order mark. An event without
 * its blank line is dropped. Whoever leaves the loop early cancels the stream.
 */
export async function* readEvents(stream: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const reader = stream.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let afterCr = false;
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      let text = decoder.decode(value, { stream: !done });
      if (text) {
        // A CR has ended its line already: an LF that follows it belongs to the same end.
        if (afterCr && text[0] === "\n") text = text.slice(1);
        afterCr = text ? text.endsWith("\r") : false;
      }
      const lines = (rest + text).split(/\r\n|\n|\r/);
      rest = lines.pop() as string;
      for (const line of lines) {
        if (!line) {
          if (data.length) yield data.join("\n");
          data = [];
        } else if (/^data(:|$)/.test(line)) {
          data.push(line.slice(5).replace(/^ /, ""));
        }
      }
      if (done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
