"""Adapters loaded next to a model's weights and switched between two forward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from escultor.errors import ModelError
from escultor.model.adapters import explain_misfit, import_peft
from escultor.model.folders import base_folder
from escultor.model.loaded import Loaded, folder_of
from escultor.store.blobs import tree_hash


class HotAdapters:
    """The adapters of one model, by names that the caller chooses. Not for two threads at once."""

    def __init__(self, loaded: Loaded):
        self._model: Any = loaded.model
        self._folder = folder_of(loaded.model)
        self._peft: Any = None  # wraps the model, whose layers it changes, from the first adapter on
        self._peft_names: dict[str, str] = {}  # by our name; peft allows no dots in its own
        self._count = 0  # of all adapters ever loaded
        self._active: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """The adapters that are loaded."""
        return frozenset(self._peft_names)

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter, not used until `use` names it; call `refuse_another_base` first. Raises ModelError
        where it does not fit the model."""
        peft_name = f"adapter{self._count}"
        peft = import_peft()
        with explain_misfit(folder):
            if self._peft is None:
                self._peft = peft.PeftModel.from_pretrained(self._model, str(folder), adapter_name=peft_name)
            else:
                self._peft.load_adapter(str(folder), adapter_name=peft_name)
        self._count += 1
        self._peft_names[name] = peft_name
        self._peft.eval()
        self._switch(self._active)

    def use(self, name: str | None) -> None:
        """Run the next forward passes with this adapter; with None, with the model's own weights alone."""
        if name != self._active:
            self._switch(name)

    def unload(self, name: str) -> None:
        """Remove an adapter; the next forward passes use the model's own weights until `use` is called."""
        peft_name = self._peft_names.pop(name)
        if self._peft_names:  # peft would choose another active one itself, with a warning
            self._peft.set_adapter(next(iter(self._peft_names.values())))
        self._switch(None)
        self._peft.delete_adapter(peft_name)

    def _switch(self, name: str | None) -> None:
        self._active = name
        if name is not None:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(self._peft_names[name])
        elif self._peft is not None:
            self._peft.base_model.disable_adapter_layers()

    def refuse_another_base(self, folder: Path) -> None:
        """Raise ModelError where the adapter in `folder` belongs to another base. Reads both folders and
        changes nothing, so other threads may use the model meanwhile."""
        base = base_folder(folder)
        if self._folder is None or tree_hash(base) != tree_hash(self._folder):
            raise ModelError(
                f"the adapter in {folder} belongs to another model",
                str(base),
                str(self._folder or "a model that was loaded from a folder"),
                "serve its own base",
            )
