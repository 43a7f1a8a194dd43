"""Adapters loaded beside a model's weights and switched between two forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from escultor.errors import ConfigError, ModelError
from escultor.model.adapters import base_of
from escultor.model.load import Loaded, folder_of


class HotAdapters:
    """The adapters of one model, by names of the caller's. Not to be used by two threads at once."""

    def __init__(self, loaded: Loaded):
        self._model: Any = loaded.model
        self._folder = folder_of(loaded.model)
        self._peft: Any = None  # wraps the model from the first adapter on, whose layers are put into it
        self._inner: dict[str, str] = {}  # peft's names: no dots in them
        self._made = 0
        self._used: str | None = None

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._inner)

    def load(self, name: str, folder: Path) -> None:
        """Put an adapter beside the others; it is not used yet. Raises ModelError where it does not fit. See
        `refuse_another_base` first."""
        try:
            from peft import PeftModel
        except ImportError as error:
            raise ConfigError("adapters need peft", remedy="pip install 'escultor[lora]'") from error
        inner = f"adapter{self._made}"
        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self._model, str(folder), adapter_name=inner)
            else:
                self._peft.load_adapter(str(folder), adapter_name=inner)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"the adapter in {folder} does not fit its base", first) from error
        self._made += 1
        self._inner[name] = inner
        self._peft.eval()
        self._switch(self._used)

    def use(self, name: str | None) -> None:
        """Let the next passes go through this adapter, or through the model's own weights alone."""
        if name != self._used:
            self._switch(name)

    def unload(self, name: str) -> None:
        """Take an adapter out; the next passes go through the model's own weights until another is used."""
        inner = self._inner.pop(name)
        if self._inner:  # peft would choose another active one itself, and warn of it
            self._peft.set_adapter(next(iter(self._inner.values())))
        self._switch(None)
        self._peft.delete_adapter(inner)

    def _switch(self, name: str | None) -> None:
        self._used = name
        if name is not None:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(self._inner[name])
        elif self._peft is not None:
            self._peft.base_model.disable_adapter_layers()

    def refuse_another_base(self, folder: Path) -> None:
        """Raises ModelError where an adapter belongs to another base. Reads both, and changes nothing: other
        threads may go on with the model."""
        from escultor.store.blobs import tree_hash

        base = base_of(folder)
        if self._folder is None or tree_hash(base) != tree_hash(self._folder):
            raise ModelError(
                f"the adapter in {folder} belongs to another model",
                str(base),
                str(self._folder or "a model that was loaded from a folder"),
                "serve its own base",
            )
