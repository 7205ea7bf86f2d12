// The public API, called as any client calls it. URLs are relative, so that a proxy may add a prefix.

const KEY = "api-key";

/** The API key: of this tab only, gone when it is closed. */
export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY)),
};

/** An error in the API's own words. `status` is null inside a stream; `retryAfter` is in seconds, or null. */
export class ApiError extends Error {
  constructor(status, { message, param, code }, retryAfter = null) {
    super(message);
    Object.assign(this, { status, param, code, retryAfter });
  }
}

/** A response with status 200. A `body` is sent as JSON by POST. Throws ApiError. */
export async function request(path, { body, signal } = {}) {
  const headers = {};
  if (apiKey.get()) headers.Authorization = `Bearer ${apiKey.get()}`;
  if (body) headers["Content-Type"] = "application/json";
  const init = { method: body ? "POST" : "GET", headers, signal, cache: "no-store" };
  let response;
  try {
    response = await fetch(path, body ? { ...init, body: JSON.stringify(body) } : init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(null, { message: `The server cannot be reached (${error.message}).` });
  }
  if (!response.ok) throw await toError(response);
  return response;
}

async function toError(response) {
  const retryAfter = Number.parseInt(response.headers.get("retry-after"), 10);
  const text = await response.text();
  let error;
  try {
    error = JSON.parse(text).error;
  } catch {
    // Not the API's: a proxy may have answered.
  }
  error ??= { message: `${response.status} ${response.statusText} ${text.slice(0, 200)}` };
  return new ApiError(response.status, error, Number.isNaN(retryAfter) ? null : retryAfter);
}

/** The events of a stream, parsed, without the last, `[DONE]`. Throws ApiError for an event that is an error. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(null, { message: "The connection ended before the answer did." });
    const parts = (text + value).split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue;
      const data = part.slice("data: ".length);
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(null, event.error);
      yield event;
    }
  }
}
