// One answer from /v1/chat/completions: its text as it comes, its tokens and its times.

import { events, request } from "./api.js";

/**
 * Generate, and call `onText` with the text so far and the facts so far. Returns the facts when the answer is complete.
 *
 * Facts: `promptTokens`, `tokens`, `firstTokenMs` from the request on, `tokensPerSecond` after the first token, or null
 * where there is no second one, and `finishReason`. Throws ApiError, and AbortError when `signal` stops it.
 */
export async function generate(body, signal, onText) {
  const clock = new Clock();
  let text = "";
  let finishReason = null;
  // Counts in every chunk, so that an answer that is stopped has them too.
  const stream_options = { include_usage: true, continuous_usage_stats: true };
  const response = await request("v1/chat/completions", { body: { ...body, stream: true, stream_options }, signal });
  for await (const event of events(response)) {
    clock.update(event.usage);
    const choice = event.choices[0];
    if (!choice) continue;
    finishReason = choice.finish_reason ?? finishReason;
    text += choice.delta.content ?? "";
    onText(text, { ...clock.facts(), finishReason });
  }
  return { ...clock.facts(), finishReason };
}

class Clock {
  #start = performance.now();
  #first = null;
  #last = null;
  #firstTokens = 0;
  #usage = null;

  /** Called with each `usage`; `completion_tokens` in it grow. */
  update(usage) {
    const before = this.#usage?.completion_tokens ?? 0;
    this.#usage = usage ?? this.#usage;
    const tokens = this.#usage?.completion_tokens ?? 0;
    if (tokens === before) return;
    this.#last = performance.now();
    if (this.#first !== null) return;
    this.#first = this.#last;
    this.#firstTokens = tokens;
  }

  facts() {
    const tokens = this.#usage?.completion_tokens ?? 0;
    const seconds = (this.#last - this.#first) / 1000;
    return {
      promptTokens: this.#usage?.prompt_tokens ?? 0,
      tokens,
      firstTokenMs: this.#first === null ? null : this.#first - this.#start,
      tokensPerSecond: seconds > 0 ? (tokens - this.#firstTokens) / seconds : null,
    };
  }
}
