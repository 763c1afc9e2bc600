"""Build networks of the package transformers from their configuration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from flexhpc.config.sections.model import HuggingFaceModel
from flexhpc.errors import PointError, one_line_message
from flexhpc.imports import imports_without_gc
from flexhpc.models.families import Shape


def build_hugging_face(model: HuggingFaceModel, shape: Shape, classes: int) -> nn.Module:
    """Build an untrained network from the configuration in a local folder or in the local cache.

    The network is called with a tensor and returns a tensor: images (n, channels, height, width) or
    token ids (n, length) are passed under the name that the network expects, and its logits are
    returned as (n, classes) or, with ``task: causal_lm``, as (n, classes, length). There, token i
    is predicted from a start token and the tokens before it.

    Raises:
        PointError: transformers cannot be imported, the configuration is not found or not
            supported, or the network has fewer than ``classes`` tokens.
    """
    transformers = _import_transformers()
    path = model.family.removeprefix("hf:")
    if model.task == "causal_lm":
        kind = transformers.AutoModelForCausalLM
    elif len(shape) == 3:
        kind = transformers.AutoModelForImageClassification
    else:
        kind = transformers.AutoModelForSequenceClassification
    options = {} if model.task == "causal_lm" else {"num_labels": classes}
    try:
        config = transformers.AutoConfig.from_pretrained(
            path, local_files_only=True, **options, **model.kwargs
        )
        network: Any = kind.from_config(config, dtype=torch.float32)
    except Exception as error:  # transformers raises various exceptions
        raise PointError(f"model.family: {model.family}: {one_line_message(error)}") from None
    if model.task == "causal_lm" and config.vocab_size < classes:
        raise PointError(
            f"data.vocabulary: {classes} is more than the {config.vocab_size} tokens of "
            f"{model.family}; use at most {config.vocab_size}"
        )
    base = f"{network.base_model_prefix}."
    head = {name for name, _ in network.named_parameters() if not name.startswith(base)}
    network.flexhpc_head = head
    if len(shape) == 1 and config.pad_token_id is None:
        network.config.pad_token_id = -1  # classify the last token, because nothing is padded
    start = getattr(config, "bos_token_id", None) or 0
    start = start if start < getattr(config, "vocab_size", 0) else 0  # as in reduced vocabularies

    def name_inputs(
        module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        (inputs,) = args
        if len(shape) == 3:
            return (), {"pixel_values": inputs}
        ids = inputs.long()
        if not torch.equal(ids.to(inputs.dtype), inputs):
            raise PointError(
                f"data: {model.family} takes token ids, but the samples are not whole numbers; set "
                "data.standardise: none"
            )
        if model.task == "causal_lm":
            ids = torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)
        return (), {"input_ids": ids}

    def take_logits(module: nn.Module, args: Any, outputs: Any) -> Tensor:
        logits: Tensor = outputs.logits
        return logits[..., :classes].transpose(1, 2) if model.task == "causal_lm" else logits

    network.register_forward_pre_hook(name_inputs, with_kwargs=True)
    network.register_forward_hook(take_logits)
    result: nn.Module = network
    return result


def _import_transformers() -> Any:
    try:
        with imports_without_gc():
            import transformers
    except ImportError as error:
        raise PointError(
            "model.family: hf:PATH needs the package transformers, which cannot be imported "
            f"({one_line_message(error)}); install flexhpc[finetuning]"
        ) from None
    return transformers
