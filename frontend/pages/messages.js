// One message as an element: its text, its figures and its buttons.

import { button, el } from "./dom.js";
import { copy } from "./exports.js";
import { render } from "./markdown.js";

/**
 * A message. `actions` are `regenerate()` of an answer and `edit(text)` of a question. The view is its `element`, and
 * `update(message)` for an answer that grows.
 */
export function messageView(message, actions) {
  const isAnswer = message.role === "assistant";
  const content = el("div", { class: isAnswer ? "content markdown" : "content" });
  const figures = el("span", { class: "figures" });
  const tools = el("footer", {}, figures, ...(isAnswer ? answerButtons() : questionButtons()));
  const name = isAnswer ? "Answer" : "You";
  const element = el("article", { class: message.role, "aria-label": name }, el("h2", {}, name), content, tools);

  function update({ content: text, facts }) {
    if (isAnswer) render(content, text);
    else content.textContent = text;
    figures.textContent = facts ? figuresOf(facts) : "";
  }

  function answerButtons() {
    return [copyButton(), button("Regenerate", actions.regenerate)];
  }

  function questionButtons() {
    return [copyButton(), button("Edit", () => content.replaceWith(editor(message.content, content, actions.edit)))];
  }

  function copyButton() {
    return button("Copy", async (event) => {
      await copy(message.content.trim());
      event.target.textContent = "Copied";
    });
  }

  update(message);
  return { element, update };
}

/** A form in place of a question's text. It focuses itself when it is shown. */
function editor(text, shown, onSend) {
  const input = el("textarea", { rows: Math.min(12, text.split("\n").length + 1), "aria-label": "Edit the message" });
  input.value = text;
  const close = () => form.replaceWith(shown);
  const submit = (event) => {
    event?.preventDefault();
    if (input.value.trim()) onSend(input.value);
  };
  const keydown = (event) => {
    if (event.key === "Escape") close();
    if (isSend(event)) submit(event);
  };
  const buttons = el("div", { class: "row" }, el("button", { class: "primary" }, "Send"), button("Cancel", close));
  const form = el("form", { class: "editor", onsubmit: submit, onkeydown: keydown }, input, buttons);
  queueMicrotask(() => input.focus());
  return form;
}

/** Whether a key sends: Enter alone, and not the one that ends a composition in an input method. */
export function isSend(event) {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.tagName === "TEXTAREA";
}

const ENDINGS = { stop: "", length: "cut at the token limit", stopped: "stopped", error: "broken off" };

/** For people: "31 + 57 tokens, first after 0.42 s, then 21.3 tokens/s". */
export function figuresOf({ promptTokens, tokens, firstTokenMs, tokensPerSecond, finishReason }) {
  if (firstTokenMs === null) return "";
  return [
    `${promptTokens} + ${tokens} tokens`,
    `first after ${(firstTokenMs / 1000).toFixed(2)} s`,
    tokensPerSecond === null ? "" : `${tokensPerSecond.toFixed(1)} tokens/s`,
    ENDINGS[finishReason] ?? finishReason ?? "",
  ]
    .filter(Boolean)
    .join(" · ");
}
