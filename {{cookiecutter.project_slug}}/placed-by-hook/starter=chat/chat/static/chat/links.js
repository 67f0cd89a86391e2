/** Finds links in a text that a stranger wrote. Everything else of it stays text. */

/**
 * An address begins with its scheme; "www." alone, or a name with a dot, may be anything. Chinese and Japanese go on
 * after it without a space.
 */
const ADDRESS = /\bhttps?:\/\/[^\s<>"'`\\^{|}、。，！？；：「」『』《》【】]+/giu;
/** What ends a sentence, or a quotation, does not belong to the address before it. */
const AFTER = new Set(".,;:!?…。、)]»”’");
/** What cannot be seen, or turns the order of letters, can make an address look like another one. */
const DECEIVING = /[\p{Cc}\p{Cf}\p{Co}\p{Cn}\p{Surrogate}]/u;
/** So can a sign in the host that looks like the slash or the dot that ends it: U+2044, U+2215, U+FF0E. */
const HOST = /^https?:\/\/(?:\[[\da-f:.]+\]|[\p{L}\p{M}\p{N}\p{Extended_Pictographic}._-]+)(?::\d*)?(?:[/?#]|$)/iu;

/**
 * Takes a text apart: put together, the parts are the text again.
 * @param {string} text
 * @returns {{text: string, href?: string}[]}  `href`: a URL of http or https. Only parts that are links have one.
 */
export function split(text) {
  const parts = [];
  let end = 0;
  for (const { 0: found, index } of text.matchAll(ADDRESS)) {
    const address = trimmed(found);
    const href = urlOf(address);
    if (!href) continue;
    if (index > end) parts.push({ text: text.slice(end, index) });
    parts.push({ text: address, href });
    end = index + address.length;
  }
  if (end < text.length) parts.push({ text: text.slice(end) });
  return parts;
}

/** Shows `text` in `element`, with links. */
export function show(element, text) {
  element.replaceChildren(...split(text).map(({ text, href }) => (href ? makeLink(text, href) : text)));
}

function makeLink(text, href) {
  const link = document.createElement("a");
  link.href = href;
  link.target = "_blank";
  link.rel = "noopener noreferrer nofollow ugc";
  link.textContent = text; // Never innerHTML: a stranger wrote it.
  return link;
}

/** Cuts off what follows an address in a sentence. A bracket that is opened in it is part of it, as in Wikipedia's. */
function trimmed(address) {
  let end = address.length;
  let unopened = count(address, ")") - count(address, "(");
  for (; AFTER.has(address[end - 1]); end -= 1) {
    if (address[end - 1] === ")" && unopened-- <= 0) break;
  }
  return address.slice(0, end);
}

const count = (text, character) => text.split(character).length - 1;

/** @returns {string | undefined}  The URL, unless it is none, or shows another host than it has. */
function urlOf(address) {
  if (DECEIVING.test(address) || !HOST.test(address)) return;
  try {
    const url = new URL(address);
    if (["http:", "https:"].includes(url.protocol) && url.hostname) return url.href;
  } catch {}
}
