/** The end of a session: nothing of it stays on the page, and what was typed is erased if somebody logs out. */

import { erase, isAnythingKept } from "./kept.js";
import { gettext } from "./texts.js";

const form = document.getElementById("logout");

form?.addEventListener("submit", (event) => {
  const { userId: user } = form.dataset;
  const question = gettext("You have written something that is not sent. It is lost if you log out.");
  if (isAnythingKept(user) && !confirm(question)) event.preventDefault();
  else erase(user);
});

/** Takes from the page what only its user may see, for the next person at this screen. */
export function showLoggedOut() {
  document.title = gettext("Logged out");
  document.body.classList.add("logged-out");
  for (const element of document.querySelectorAll("[data-private]")) element.replaceChildren();
}
