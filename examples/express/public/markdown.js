/** What the model wrote, as Markdown. It may write anything, so only harmless elements are kept. */
import DOMPurify from "/modules/dompurify/purify.es.mjs";
import { marked } from "/modules/marked/marked.esm.js";

// A link opens beside the page, which would lose the conversation.
DOMPurify.addHook("afterSanitizeAttributes", (element) => {
  if (element.tagName !== "A") return;
  element.setAttribute("target", "_blank");
  element.setAttribute("rel", "noopener noreferrer");
});

/** @param {HTMLElement} place @param {string} text */
export function showMarkdown(place, text) {
  const html = marked.parse(text, { async: false, breaks: true });
  const safe = DOMPurify.sanitize(html, {
    // No images: the address of one could carry what was said to somebody else's server.
    ALLOWED_TAGS: [
      ..."a blockquote br code del em h1 h2 h3 h4 h5 h6 hr li ol p pre strong".split(" "),
      ..."table tbody td th thead tr ul".split(" "),
    ],
    ALLOWED_ATTR: ["href", "start", "align"],
    RETURN_TRUSTED_TYPE: true, // which the page's policy asks for
  });
  place.innerHTML = /** @type {string} */ (/** @type {unknown} */ (safe));
}
