// The chat page: what is shown, and what happens on a click or a key. It calls the public API only.

import { ApiError, request } from "./api.js";
import { generate } from "./answer.js";
import { create, list, remove, save, stored, titleOf, toMessages } from "./conversations.js";
import { button, el } from "./dom.js";
import { copy, download, toCurl } from "./exports.js";
import { failureNotice } from "./failures.js";
import { isSend, messageView } from "./messages.js";
import { field, parameterInputs, toFields } from "./parameters.js";

const $ = (id) => document.getElementById(id);
const CHAT = "v1/chat/completions";
const REDRAW_MS = 50;

let models = [];
let note = ""; // what the checkpoint says to its users
let current = list()[0] ?? create();
let running = null; // the AbortController of the answer that is generated now
let answering = Promise.resolve(); // done when that answer is kept

// --- The request

function modelOf(conversation) {
  return models.includes(conversation.model) ? conversation.model : (models[0] ?? conversation.model);
}

function bodyOf(conversation, messages = toMessages(conversation)) {
  return { model: modelOf(conversation), messages, ...toFields(conversation.parameters) };
}

/** Generate the answer to the last message, show it as it grows, and keep it. */
function answer() {
  answering = answerLast();
}

async function answerLast() {
  const conversation = current;
  const message = { role: "assistant", content: "" };
  let view = null;
  let drawnAt = 0;
  running = new AbortController();
  $("notice").replaceChildren();
  showRunning();
  const add = () => {
    view = viewOf(message, conversation.messages.push(message) - 1);
    following(() => $("messages").append(view.element));
  };
  const onText = (content, facts) => {
    Object.assign(message, { content, facts });
    if (content && !view) add();
    if (!view || performance.now() - drawnAt < REDRAW_MS) return;
    following(() => view.update(message));
    drawnAt = performance.now();
  };
  try {
    message.facts = await generate(bodyOf(conversation), running.signal, onText);
    if (!view) add(); // an empty answer is one too
    announce(`The answer is complete: ${message.facts.tokens} tokens.`);
  } catch (error) {
    ended(message, error);
  } finally {
    running = null;
    keep(conversation);
    showRunning();
    if (conversation === current) following(() => (view ? view.update(message) : offerAnswer()));
  }
}

/** Show why an answer has no end. What came before it stays. */
function ended(message, error) {
  const isStopped = error.name === "AbortError";
  if (message.facts) message.facts.finishReason = isStopped ? "stopped" : "error";
  if (isStopped) return announce("Stopped.");
  if (!(error instanceof ApiError || error instanceof SyntaxError)) console.error(error);
  return fail(error, () => regenerate(current.messages.indexOf(message)));
}

function fail(error, retry) {
  following(() => $("notice").replaceChildren(failureNotice(error, retry)));
}

function send(text) {
  current.messages.push({ role: "user", content: text });
  keep(current);
  show();
  answer();
}

/** Answer again: the message at `index` and all behind it go. -1: there was no answer yet. */
function regenerate(index) {
  if (index !== -1) current.messages.length = index;
  show();
  answer();
}

function edit(index, text) {
  current.messages.length = index;
  send(text);
}

/** Closing the connection is what stops the engine. */
function stop() {
  running?.abort();
}

// --- Keeping

function keep(conversation) {
  if (!conversation.messages.length) return;
  try {
    save(conversation);
  } catch (error) {
    toast(`This browser keeps no more conversations (${error.name}). Delete some, or export this one.`);
  }
  showConversations();
}

async function open(conversation) {
  stop();
  await answering;
  current = stored(conversation.id) ?? conversation;
  document.body.classList.remove("with-side");
  $("menu").setAttribute("aria-expanded", "false");
  $("notice").replaceChildren();
  show();
  showConversations();
  $("input").focus();
}

async function discard(conversation) {
  const isCurrent = conversation.id === current.id;
  if (isCurrent) stop();
  await answering;
  const kept = stored(conversation.id);
  remove(conversation);
  if (isCurrent) await open(list()[0] ?? create(current));
  showConversations();
  toast("Deleted.", "Undo", () => {
    save(kept);
    open(kept);
  });
}

// --- Showing

function viewOf(message, index) {
  return messageView(message, {
    regenerate: () => running || regenerate(index),
    edit: (text) => running || edit(index, text),
  });
}

function show() {
  $("messages").replaceChildren(...current.messages.map((message, index) => viewOf(message, index).element));
  if (!current.messages.length) $("messages").append(el("p", { class: "empty" }, "Ask the model something.", el("small", {}, note)));
  offerAnswer();
  $("scroll").scrollTop = $("scroll").scrollHeight;
}

/** A button for a question without an answer, unless something else is said about it. */
function offerAnswer() {
  if (running || current.messages.at(-1)?.role !== "user" || $("notice").hasChildNodes()) return;
  $("notice").replaceChildren(el("div", { class: "row" }, button("Get an answer", () => regenerate(-1))));
}

/** Change what is shown, and stay at its end if that is where the reader is. */
function following(change) {
  const box = $("scroll");
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  change();
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function showRunning() {
  const isRunning = running !== null;
  document.body.classList.toggle("running", isRunning);
  $("messages").setAttribute("aria-busy", String(isRunning));
  $("send").hidden = isRunning;
  $("stop").hidden = !isRunning;
  if (isRunning) announce("The model answers.");
}

function showConversations() {
  const items = list().map((conversation) => {
    const isCurrent = conversation.id === current.id;
    const title = titleOf(conversation);
    const select = button(title, () => open(conversation), { "aria-current": isCurrent ? "true" : null });
    return el("li", {}, select, button("×", () => discard(conversation), { class: "delete", "aria-label": `Delete ${title}` }));
  });
  $("conversations").replaceChildren(...items);
}

function showSettings() {
  const changed = () => keep(current);
  const system = el("textarea", { name: "system", rows: 4 }, current.system);
  system.addEventListener("input", () => changed((current.system = system.value)));
  const model = el("select", { name: "model" }, ...models.map((name) => el("option", { selected: name === modelOf(current) }, name)));
  model.addEventListener("change", () => {
    current.model = model.value;
    showModel();
    changed();
  });
  const inputs = parameterInputs(current.parameters, (name, value) => changed((current.parameters[name] = value)));
  $("fields").replaceChildren(
    field("Model", "a name that the server has", model),
    field("System prompt", "instructions before the first message", system),
    ...inputs,
  );
}

function showModel() {
  const name = modelOf(current) || "Chat";
  $("model").textContent = name.split("/").at(-1);
  $("model").title = name;
  document.title = $("model").textContent;
}

function announce(text) {
  $("announce").textContent = text;
}

let toastTimer = null;
function toast(text, label, action) {
  const act = () => {
    $("toast").replaceChildren();
    action();
  };
  $("toast").replaceChildren(text, ...(label ? [button(label, act)] : []));
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $("toast").replaceChildren(), 8000);
}

// --- The buttons and keys

/** The conversation with what stands in the message box. */
function draft() {
  const text = $("input").value;
  const messages = toMessages(current);
  return text.trim() ? [...messages, { role: "user", content: text }] : messages;
}

async function showPrompt() {
  try {
    const response = await request(`${CHAT}/render`, { body: bodyOf(current, draft()) });
    const { prompt, prompt_token_ids: ids } = await response.json();
    $("prompt-text").textContent = prompt;
    $("prompt-tokens").textContent = `${ids.length} tokens, as the engine gets them`;
    $("prompt").showModal();
  } catch (error) {
    fail(error, showPrompt);
  }
}

async function copyCurl() {
  try {
    await copy(toCurl(CHAT, { ...bodyOf(current, draft()), stream: true }));
    toast("The curl line is copied.");
  } catch (error) {
    fail(error, copyCurl);
  }
}

function submit(event) {
  event.preventDefault();
  const text = $("input").value;
  if (running || !text.trim()) return;
  $("input").value = "";
  fit();
  send(text);
}

/** The message box is as high as its text. */
function fit() {
  $("input").style.height = "auto";
  $("input").style.height = `${$("input").scrollHeight + 2}px`;
}

function toggleSide() {
  const isOpen = document.body.classList.toggle("with-side");
  $("menu").setAttribute("aria-expanded", String(isOpen));
}

function listen() {
  $("composer").addEventListener("submit", submit);
  $("input").addEventListener("keydown", (event) => isSend(event) && submit(event));
  $("input").addEventListener("input", fit);
  $("stop").addEventListener("click", stop);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) stop();
  });
  $("new").addEventListener("click", () => open(create(current)));
  $("menu").addEventListener("click", toggleSide);
  $("open-settings").addEventListener("click", () => {
    showSettings();
    $("settings").showModal();
  });
  $("reset").addEventListener("click", () => {
    Object.assign(current, { system: "", parameters: {} });
    keep(current);
    showSettings();
  });
  $("open-prompt").addEventListener("click", showPrompt);
  $("copy-curl").addEventListener("click", copyCurl);
  $("export").addEventListener("click", () => download("conversation.json", { ...current, body: bodyOf(current) }));
  addEventListener("pagehide", () => running && keep(current)); // with what has come of the answer
  addEventListener("storage", showConversations); // another tab changed them
}

async function loadModels() {
  try {
    models = (await (await request("v1/models")).json()).data.map(({ id }) => id);
    note = (await (await request("tokenizer_info")).json()).note ?? "";
    $("notice").replaceChildren();
    showModel();
    show();
  } catch (error) {
    fail(error, loadModels);
  }
}

listen();
show();
showConversations();
await loadModels();
$("input").focus();
