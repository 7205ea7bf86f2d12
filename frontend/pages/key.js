// The form that asks for an API key, where the server needs one.

import { apiKey } from "./api.js";
import { el } from "./dom.js";

/** A form in the server's words. It keeps the key in this tab and calls `onKey`. */
export function keyForm(message, onKey) {
  const input = el("input", { type: "password", name: "key", autocomplete: "off", required: true, "aria-label": "API key" });
  const submit = (event) => {
    event.preventDefault();
    apiKey.set(input.value.trim());
    onKey();
  };
  return el(
    "form",
    { class: "notice key-form", onsubmit: submit },
    el("p", { role: "alert" }, message),
    el("div", { class: "row" }, input, el("button", { class: "primary" }, "Use this key")),
    el("small", {}, "The key stays in this tab, and is gone when you close it."),
  );
}
