"""The vision transformer of the papers from torch's own layers: what ours is compared with, sharing nothing with it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

SHIFT = 0.1


def random_state(module, seed=0):
    """Return a state dict in which no tensor is trivial: norms, biases and positions too."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in module.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        is_scale = "norm" in name and name.endswith("weight")
        state[name] = 1 + 0.2 * noise if is_scale else noise * (0.5 / max(tensor[0].numel(), 4) ** 0.5)
    return state


class PlainViT:
    """Pre-norm encoder over [class token, tokens] + positions, from a state dict with DINO's names."""

    def __init__(self, state, *, depth, heads, side=14):
        self.state, self.side = state, side
        dim = state["cls_token"].shape[2]
        self.dim = dim
        self.layers = [self._layer(state, f"blocks.{i}.", dim, heads) for i in range(depth)]
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.norm.load_state_dict({"weight": state["norm.weight"], "bias": state["norm.bias"]})

    @staticmethod
    def _layer(state, prefix, dim, heads):
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        ours = {
            "self_attn.in_proj_": "attn.qkv.",
            "self_attn.out_proj.": "attn.proj.",
            "linear1.": "mlp.fc1.",
            "linear2.": "mlp.fc2.",
            "norm1.": "norm1.",
            "norm2.": "norm2.",
        }
        layer.load_state_dict(
            {a + kind: state[prefix + b + kind] for a, b in ours.items() for kind in ("weight", "bias")}
        )
        return layer.eval()

    def embed(self, x):
        if "phi.0.weight" in self.state:
            tokens = x.flatten(2).transpose(1, 2)
            return F.gelu(F.linear(tokens, self.state["phi.0.weight"], self.state["phi.0.bias"])), x.shape[2:]
        weight = self.state["patch_embed.proj.weight"]
        patch = weight.shape[2]
        cut = F.unfold(x, patch, stride=patch).transpose(1, 2)  # each patch as one row of pixels
        grid = (x.shape[2] // patch, x.shape[3] // patch)
        return F.linear(cut, weight.flatten(1), self.state["patch_embed.proj.bias"]), grid

    def positions(self, grid):
        rows, columns = grid
        learned = self.state["pos_embed"]
        if rows * columns == self.side**2 and rows == columns:
            return learned
        square = learned[:, 1:].reshape(1, self.side, self.side, self.dim).permute(0, 3, 1, 2)
        factor = ((rows + SHIFT) / self.side, (columns + SHIFT) / self.side)
        other = F.interpolate(square, scale_factor=factor, mode="bicubic")
        assert tuple(other.shape[2:]) == (rows, columns)
        return torch.cat([learned[:, :1], other.permute(0, 2, 3, 1).reshape(1, rows * columns, self.dim)], dim=1)

    def run(self, x):
        """Return the normed tokens, and the attention of the class token in the last block `[n, heads, gh, gw]`."""
        tokens, grid = self.embed(x)
        tokens = torch.cat([self.state["cls_token"].expand(len(x), -1, -1), tokens], dim=1) + self.positions(grid)
        for layer in self.layers[:-1]:
            tokens = layer(tokens)
        last = self.layers[-1]
        normed = last.norm1(tokens)
        weights = last.self_attn(normed, normed, normed, need_weights=True, average_attn_weights=False)[1]
        return self.norm(last(tokens)), weights[:, :, 0, 1:].unflatten(2, tuple(grid))

    def vectors(self, x):
        """Return the class tokens by torch's own way through its layers, `[n, dim]`."""
        tokens, grid = self.embed(x)
        tokens = torch.cat([self.state["cls_token"].expand(len(x), -1, -1), tokens], dim=1) + self.positions(grid)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, 0])
