// Conversations, kept in this browser: each in localStorage under a key of its own, so that tabs do not overwrite
// one another's. A conversation is {id, updated, system, model, parameters, messages: [{role, content, facts?}]}.

const PREFIX = "conversation:";

/** A new conversation with the settings of another. It is stored when it has a message. */
export function create({ system = "", model = "", parameters = {} } = {}) {
  return { id: newId(), updated: Date.now(), system, model, parameters: { ...parameters }, messages: [] };
}

/** All conversations, the one that was changed last first. What cannot be read is skipped. */
export function list() {
  return Object.keys(localStorage)
    .filter((key) => key.startsWith(PREFIX))
    .map((key) => parse(localStorage.getItem(key)))
    .filter((conversation) => Array.isArray(conversation?.messages) && conversation.messages.length)
    .sort((one, other) => other.updated - one.updated);
}

/** The conversation of an id as it is kept now, or null. */
export function stored(id) {
  return parse(localStorage.getItem(PREFIX + id));
}

/** Keep a conversation. Throws a DOMException if the browser's storage is full. */
export function save(conversation) {
  conversation.updated = Date.now();
  localStorage.setItem(PREFIX + conversation.id, JSON.stringify(conversation));
}

/** Delete it. `save` brings it back. */
export function remove(conversation) {
  localStorage.removeItem(PREFIX + conversation.id);
}

/** Its first words. */
export function titleOf(conversation) {
  const words = (conversation.messages[0]?.content ?? "").trim().split(/\s+/).join(" ");
  return words.length > 60 ? `${words.slice(0, 57)}...` : words || "New chat";
}

/** The messages as the API takes them, the system prompt first. */
export function toMessages({ system, messages }) {
  const sent = messages.map(({ role, content }) => ({ role, content }));
  return system.trim() ? [{ role: "system", content: system }, ...sent] : sent;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

// crypto.randomUUID exists over HTTPS and on localhost only.
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
