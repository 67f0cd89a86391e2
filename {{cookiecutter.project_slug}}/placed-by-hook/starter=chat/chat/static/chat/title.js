/** The title of a tab that is hidden tells how many messages have come meanwhile. */

let count = 0;

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) show(0);
});

/** Counts messages, unless the reader sees them come. */
export function countUnseen(more) {
  if (document.hidden && more) show(count + more);
}

function show(number) {
  if (number === count) return;
  // Not that of the beginning: after a logout it tells nothing any more.
  const title = document.title.replace(prefixOf(count), "");
  count = number;
  document.title = prefixOf(count) + title;
}

const prefixOf = (number) => (number ? `(${number}) ` : "");
