/** What the model wrote, as Markdown. It may write anything, so only harmless elements are kept. */
import DOMPurify from "dompurify";
import { marked } from "marked";
import { memo } from "react";

// No images: the address of one could carry what was said to somebody else's server.
const ALLOWED = {
  ALLOWED_TAGS: [
    ..."a blockquote br code del em h1 h2 h3 h4 h5 h6 hr li ol p pre strong".split(" "),
    ..."table tbody td th thead tr ul".split(" "),
  ],
  ALLOWED_ATTR: ["href", "start", "align"],
};

// A link opens beside the page, which would lose the conversation.
DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.tagName !== "A") return;
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", "noopener noreferrer");
});

export const Markdown = memo(function Markdown({ text }: { text: string }) {
  const html = DOMPurify.sanitize(marked.parse(text, { async: false, breaks: true }), ALLOWED);
  return <div className="markdown" dangerouslySetInnerHTML={{ __html: html }} />;
});
