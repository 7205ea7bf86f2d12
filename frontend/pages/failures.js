// What went wrong, in the API's words, and the way on.

import { button, el } from "./dom.js";
import { keyForm } from "./key.js";

/** A notice for an error. A 401 asks for a key; what has a Retry-After counts it down before `retry` can be pressed. */
export function failureNotice(error, retry) {
  if (error.status === 401) return keyForm(error.message, retry);
  const again = button("Try again", retry);
  const where = [error.status, error.code, error.param && `field ${error.param}`].filter(Boolean).join(" · ");
  if (error.retryAfter) countDown(again, error.retryAfter);
  return el(
    "div",
    { class: "notice error" },
    el("p", { role: "alert" }, error.message),
    el("div", { class: "row" }, again, el("small", {}, where)),
  );
}

function countDown(again, seconds) {
  const ready = Date.now() + seconds * 1000;
  const show = () => {
    const left = Math.ceil((ready - Date.now()) / 1000);
    again.disabled = left > 0;
    again.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left <= 0) clearInterval(timer);
  };
  const timer = setInterval(show, 250);
  show();
}
