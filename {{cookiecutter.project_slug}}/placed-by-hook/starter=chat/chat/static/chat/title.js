/** The title of a tab that is hidden tells how many messages have come meanwhile. */

const title = document.title;
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
  count = number;
  document.title = count ? `(${count}) ${title}` : title;
}
