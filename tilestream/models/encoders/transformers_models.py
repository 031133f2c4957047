"""Encoders of transformers: from a folder as the hub stores a model, never by code that lies in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tilestream.errors import ConfigError
from tilestream.models.encoders.folders import read_config
from tilestream.models.encoders.libraries import import_library, takes
from tilestream.models.encoders.record import EncoderRecord

PROCESSOR = "preprocessor_config.json"
BICUBIC = 3
"""Number of Pillow's bicubic interpolation, which configurations of processors name."""
WITH_CLASS_TOKEN = {
    "beit": 1,
    "data2vec-vision": 1,
    "deit": 2,  # and one for distillation
    "dinov2": 1,
    "dinov2_with_registers": 1,
    "dinov3_vit": 1,
    "vit": 1,
    "vit_mae": 1,
    "vit_msn": 1,
}
"""Tokens before those of the patches, without registers, of the models that begin with a class token."""
SHOWN = 3
"""Names that a message shows."""


class HubModel(nn.Module):
    """Samples `[n, c, h, w]` to tokens `[n, t, d]` or maps `[n, d, h, w]`, or to vectors `[n, d]` of its own pooler.

    Parameters
    ----------
    network : nn.Module
        Of transformers.
    is_pooled : bool
        Whether vectors of its pooler are wanted.
    """

    def __init__(self, network: nn.Module, *, is_pooled: bool) -> None:
        super().__init__()
        self.network = network
        self.is_pooled = is_pooled

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, maps or vectors of samples."""
        found = self.network(pixel_values=x)
        taken: Tensor = found.pooler_output.flatten(1) if self.is_pooled else found.last_hidden_state
        return taken


def facts(record: EncoderRecord, folder: Path) -> dict[str, Any]:
    """Return what the configurations of model and processor in a folder say.

    Parameters
    ----------
    record : EncoderRecord
        The encoder.
    folder : Path
        Has `config.json`, and `preprocessor_config.json` where samples are to be scaled.

    Returns
    -------
    dict
        Fields of `EncoderRecord`.
    """
    config = read_config(folder / "config.json")
    kind = str(config.get("model_type"))
    prefix = WITH_CLASS_TOKEN.get(kind, 0)
    found = {
        "px": config.get("image_size"),
        "channels": config.get("num_channels"),
        "pooling": "cls" if prefix else "mean",
        "prefix_tokens": prefix + int(config.get("num_register_tokens") or 0),
    }
    if (folder / PROCESSOR).is_file():
        found |= _processor_facts(read_config(folder / PROCESSOR))
    return found


def _processor_facts(config: dict[str, Any]) -> dict[str, Any]:
    is_cropped = config.get("do_center_crop", False) and config.get("crop_size")
    normalises, scales = config.get("do_normalize", True), config.get("do_rescale", True)
    found: dict[str, Any] = {
        "mean": tuple(config.get("image_mean") or ()) if normalises else (),
        "std": tuple(config.get("image_std") or ()) if normalises else (),
        "interpolation": "bicubic" if config.get("resample", BICUBIC) == BICUBIC else "bilinear",
    }
    if not scales:
        found["scale"] = 1.0
    elif "rescale_factor" in config:
        found["scale"] = float(config["rescale_factor"])
    size = _edge(config["crop_size"] if is_cropped else config.get("size"))
    return found if size is None else {**found, "px": size}


def _edge(size: Any) -> int | None:
    """Return the edge of a square that a processor makes; None where it makes another shape."""
    if isinstance(size, int):
        return size
    if isinstance(size, dict):
        height, width = (size.get(key, size.get("shortest_edge")) for key in ("height", "width"))
        return height if isinstance(height, int) and height == width else None
    return None


def build(record: EncoderRecord, folder: Path, *, is_random: bool) -> Any:
    """Return the network, with the weights of the folder unless they are to be random.

    Parameters
    ----------
    record : EncoderRecord
        The encoder.
    folder : Path
        Configuration and weights.
    is_random : bool
        Whether weights are left as they are made.

    Returns
    -------
    torch.nn.Module
        Takes samples and returns tokens, or what its pooler gives.

    Raises
    ------
    ConfigError
        When the library does not have the model, or the weights are not those of it.
    """
    transformers = import_library("transformers")
    what = f"`{record.name}` in `{folder}`"
    try:
        config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        kind = transformers.AutoModel._model_mapping[type(config)]
    except (OSError, ValueError, LookupError, ImportError) as error:
        raise ConfigError.of(
            what,
            got=str(error).strip().splitlines()[0],
            expected="a model that transformers has itself",
            do="Code that lies beside weights is not run: where you trust it, make the model in a module of yours and "
            "name that, `--encoder module:callable`.",
        ) from error
    arguments = dict(record.arguments)
    if takes(kind.__init__, "add_pooling_layer") and record.pooling != "pooler":
        arguments["add_pooling_layer"] = False
    if is_random:
        network = kind._from_config(config, **arguments)
    else:
        network = _loaded(kind, folder, arguments, what)
    return HubModel(network, is_pooled=record.pooling == "pooler")


def _loaded(kind: Any, folder: Path, arguments: dict[str, Any], what: str) -> Any:
    try:
        network, told = kind.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True, dtype="float32", **arguments
        )
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError.of(what, got=reason, expected="its weights", do="Download the folder again.") from error
    missing, mismatched = sorted(told.get("missing_keys", ())), sorted(map(str, told.get("mismatched_keys", ())))
    if missing or mismatched:
        wrong = [*missing, *mismatched]
        raise ConfigError.of(
            what,
            got=f"weights that lack {len(missing)} of its tensors and have {len(mismatched)} in another shape "
            f"({', '.join(wrong[:SHOWN])})",
            expected="all of its tensors",
            do="Give the folder of this model.",
        )
    return network
