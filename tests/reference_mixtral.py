"""An independent forward pass of Mixtral in numpy, written from the papers: the oracle for logits.

Jiang et al. 2024 (Mixtral: top-k softmax over the router's logits), Su et al. 2021 (rotary positions, applied to the
two halves of a head as Hugging Face stores it), Shazeer 2020 (SwiGLU), Zhang & Sennrich 2019 (RMSNorm). Every token is
routed in a plain loop, weights are unpacked by a formula per element, and everything is float64: slow and simple.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
Floats = NDArray[np.float64]


def dequantized(tensors: Tensors, name: str, group_size: int) -> Floats:
    """[in, out] of an AutoAWQ linear. Channel c is in word c // 8, in the nibble at which the order has c % 8."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def unpacked(words: NDArray[np.int32]) -> Floats:
        channels = [
            (words[:, channel // 8].astype(np.int64) >> (4 * order.index(channel % 8))) & 15
            for channel in range(words.shape[1] * 8)
        ]
        values: Floats = np.stack(channels, axis=1).astype(np.float64)
        return values

    q = unpacked(tensors[f"{name}.qweight"])
    z = np.repeat(unpacked(tensors[f"{name}.qzeros"]), group_size, axis=0)
    s = np.repeat(tensors[f"{name}.scales"].astype(np.float64), group_size, axis=0)
    weight: Floats = (q - z) * s
    return weight


class ReferenceMixtral:
    """Logits of a whole sequence at once; no cache."""

    def __init__(self, config: dict[str, Any], tensors: Tensors) -> None:
        self.config = config
        self.plain = {name: t.astype(np.float64) for name, t in tensors.items() if name.endswith(".weight")}
        group_size = config["quantization_config"]["group_size"]
        linears = {name.rsplit(".", 1)[0] for name in tensors if name.endswith(".qweight")}
        self.linear = {name: dequantized(tensors, name, group_size) for name in linears}

    def logits(self, prompt_token_ids: list[int]) -> Floats:
        """float64 [len(prompt_token_ids), vocab_size]."""
        x = self.plain["model.embed_tokens.weight"][prompt_token_ids]
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}"
            x = x + self._attention(self._norm(x, f"{prefix}.input_layernorm"), f"{prefix}.self_attn")
            normed = self._norm(x, f"{prefix}.post_attention_layernorm")
            x = x + np.stack([self._experts(token, f"{prefix}.block_sparse_moe") for token in normed])
        tied = self.config["tie_word_embeddings"]
        return self._norm(x, "model.norm") @ self.plain["model.embed_tokens.weight" if tied else "lm_head.weight"].T

    def greedy(self, prompt_token_ids: list[int], num_tokens: int) -> list[int]:
        """The next `num_tokens` most likely tokens."""
        token_ids = list(prompt_token_ids)
        for _ in range(num_tokens):
            token_ids.append(int(self.logits(token_ids)[-1].argmax()))
        return token_ids[len(prompt_token_ids) :]

    def _norm(self, x: Floats, name: str) -> Floats:
        root: Floats = np.sqrt((x**2).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return x / root * self.plain[f"{name}.weight"]

    def _attention(self, x: Floats, name: str) -> Floats:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        length = len(x)
        q = self._rotated((x @ self.linear[f"{name}.q_proj"]).reshape(length, heads, -1))
        k = self._rotated((x @ self.linear[f"{name}.k_proj"]).reshape(length, kv_heads, -1))
        v = (x @ self.linear[f"{name}.v_proj"]).reshape(length, kv_heads, -1)
        context = np.zeros_like(q)
        for head in range(heads):
            kv_head = head // (heads // kv_heads)
            for t in range(length):
                scores = k[: t + 1, kv_head] @ q[t, head] / np.sqrt(q.shape[-1])
                weights = np.exp(scores - scores.max())
                context[t, head] = weights @ v[: t + 1, kv_head] / weights.sum()
        return context.reshape(length, -1) @ self.linear[f"{name}.o_proj"]

    def _rotated(self, x: Floats) -> Floats:
        half = x.shape[-1] // 2
        frequencies = self.config["rope_theta"] ** (-np.arange(half) / half)
        angles = np.arange(len(x))[:, None, None] * frequencies
        first, second = x[..., :half], x[..., half:]
        return np.concatenate(
            [first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)], -1
        )

    def _experts(self, token: Floats, name: str) -> Floats:
        scores = self.plain[f"{name}.gate.weight"] @ token
        chosen = np.argsort(-scores)[: self.config["num_experts_per_tok"]]
        weights = np.exp(scores[chosen] - scores[chosen].max())
        outputs = [self._swiglu(token, f"{name}.experts.{expert}") for expert in chosen]
        mixed: Floats = (weights / weights.sum()) @ np.stack(outputs)
        return mixed

    def _swiglu(self, token: Floats, name: str) -> Floats:
        gate: Floats = token @ self.linear[f"{name}.w1"]
        up: Floats = token @ self.linear[f"{name}.w3"]
        return (gate / (1 + np.exp(-gate)) * up) @ self.linear[f"{name}.w2"]
