"""Puts the key-value caches of several rows together and takes them apart. Layer: llm; torch, transformers.

The one idea: a dense cache is a rectangle, rows by positions, whose rows end at its right edge. A row that
is younger than the others is padded on its left and the mask says so; a model that sees only distances
between positions (T5's relative bias), or is told each row's positions (`position_ids`), computes the same.
That turns a batch that nobody may join into one that anybody may join at any step.

Only transformers' plain `DynamicLayer` is such a rectangle: sliding windows and recurrent states are not,
and `is_plain` says so. Shapes: a layer's keys and values are (rows, heads, positions, width).

`DynamicLayer` copies the whole rectangle at every step to append one column. `RoomyLayer` keeps some empty
columns at the right edge and writes into them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

ROOM = 64
"""Empty columns a layer is given when it is copied: one copy in so many steps."""


class RoomyLayer(DynamicLayer):
    """A DynamicLayer that appends in place. `keys` and `values` are views of what is filled; whoever replaces
    them with other tensors (padding, joining) only costs the next update a copy."""

    _room: tuple[torch.Tensor, torch.Tensor] | None = None
    _views: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends columns; the filled keys and values."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.keys, self.values = key_states, value_states
            return self.keys, self.values
        filled = self.keys.shape[-2]
        end = filled + key_states.shape[-2]
        room = self._room
        if (
            room is None
            or self._views is None
            or self.keys is not self._views[0]
            or self.values is not self._views[1]
            or end > room[0].shape[-2]
        ):
            room = _roomy(self.keys, end + ROOM), _roomy(self.values, end + ROOM)
        room[0][:, :, filled:end] = key_states
        room[1][:, :, filled:end] = value_states
        self.keys, self.values = room[0][:, :, :end], room[1][:, :, :end]
        self._room, self._views = room, (self.keys, self.values)
        return self.keys, self.values


def _roomy(filled: torch.Tensor, columns: int) -> torch.Tensor:
    rows, heads, positions, width = filled.shape
    room = filled.new_empty((rows, heads, columns, width))
    room[:, :, :positions] = filled
    return room


def empty(config: Any) -> DynamicCache:
    """A cache for this model, its plain layers roomy."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def is_plain(cache: DynamicCache) -> bool:
    """Whether rows of this cache may be padded, joined and cut."""
    return bool(cache.layers) and all(type(layer) is RoomyLayer for layer in cache.layers)


def pad(tensor: torch.Tensor, size: int, dim: int, left: bool) -> torch.Tensor:
    """The tensor with zeros added at one side of `dim` until it is `size` long."""
    missing = size - tensor.shape[dim]
    if missing == 0:
        return tensor
    shape = list(tensor.shape)
    shape[dim] = missing
    zeros = tensor.new_zeros(shape)
    return torch.cat([zeros, tensor] if left else [tensor, zeros], dim=dim)


def stack(tensors: Sequence[torch.Tensor], dim: int, left: bool) -> torch.Tensor:
    """Rows of all tensors under each other, padded to the longest along `dim`."""
    size = max(tensor.shape[dim] for tensor in tensors)
    return torch.cat([pad(tensor, size, dim, left) for tensor in tensors])


def append(cache: DynamicCache, others: Sequence[DynamicCache], left: bool) -> None:
    """Adds the rows of `others` below those of `cache`, padded on one side to the longest."""
    for number, layer in enumerate(cache.layers):
        parts = [layer, *(other.layers[number] for other in others)]
        layer.keys = stack([part.keys for part in parts], 2, left)
        layer.values = stack([part.values for part in parts], 2, left)


def _each(cache: DynamicCache, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    for layer in cache.layers:
        if layer.is_initialized and layer.keys.numel():
            layer.keys, layer.values = change(layer.keys), change(layer.values)


def keep_columns(cache: DynamicCache, first: int, end: int | None = None) -> None:
    """Drops the positions before `first` and from `end` on."""
    _each(cache, lambda tensor: tensor[:, :, first:end].contiguous())


def expand(cache: DynamicCache, rows: int, config: Any) -> DynamicCache:
    """A cache of `rows` copies of the one row in `cache`, which stays as it is."""
    copy = empty(config)
    for number, layer in enumerate(cache.layers):
        copy.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), number)
    return copy
