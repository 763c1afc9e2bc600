"""Build networks of the package transformers from their configuration."""

from __future__ import annotations

import copy
import os
import sys
from typing import Any

import torch
from torch import Tensor, nn

from flexhpc.config.sections.data import PADDING
from flexhpc.config.sections.model import HuggingFaceModel
from flexhpc.errors import PointError, one_line_message
from flexhpc.imports import imports_without_gc
from flexhpc.models.families import Shape

_LOCAL = {"local_files_only": True, "trust_remote_code": False}


def build_hugging_face(model: HuggingFaceModel, shape: Shape, classes: int) -> nn.Module:
    """Build a network from the configuration in a local folder or in the local cache.

    The network is called with a tensor and returns a tensor: images (n, channels, height, width) or
    token ids (n, length) are passed under the name that the network expects, and its logits are
    returned as (n, classes) or, with ``task: causal_lm``, as (n, vocabulary, length). There, token
    i is predicted from a start token and the tokens before it, among all tokens of the network's
    vocabulary. Pretrained weights are loaded by transformers.

    Raises:
        PointError: transformers cannot be imported, the configuration or the weights are not found,
            do not match or are not supported, the network has fewer than ``classes`` tokens, or a
            sequence has more tokens than the network has positions.
    """
    transformers = _import_transformers()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    key = f"model.family: {model.family}"
    path = os.path.expanduser(model.family.removeprefix("hf:"))
    if model.task == "causal_lm":
        kind = transformers.AutoModelForCausalLM
    elif len(shape) == 3:
        kind = transformers.AutoModelForImageClassification
    else:
        kind = transformers.AutoModelForSequenceClassification
    labels = {} if model.task == "causal_lm" else {"num_labels": classes}
    try:
        config, unused = transformers.AutoConfig.from_pretrained(
            path, **_LOCAL, **labels, **model.kwargs, return_unused_kwargs=True
        )
        if unused := {name for name in unused if name in model.kwargs}:
            raise PointError(f"model.kwargs: {model.family} has no key {', '.join(unused)}")
        if model.task == "causal_lm":
            config.is_decoder = True  # encoders such as BERT would see the predicted tokens
            config.use_cache = False
        network, head = _create(kind, config, model)
    except PointError:
        raise
    except Exception as error:  # transformers raises various exceptions
        raise PointError(f"{key}: {one_line_message(error)[:300]}") from None
    if model.task == "causal_lm" and config.vocab_size < classes:
        raise PointError(
            f"data: {classes} different tokens are more than the {config.vocab_size} tokens of "
            f"{model.family}"
        )
    positions = getattr(config, "max_position_embeddings", None) or 0
    if len(shape) == 1 and 0 < positions < shape[0]:  # XLNet, which has no limit, has -1
        raise PointError(
            f"data: sequences of {shape[0]} tokens are longer than the {positions} positions of "
            f"{model.family}; shorten them, or increase max_position_embeddings with model.kwargs"
        )
    if len(head) == len([*network.parameters()]):
        raise PointError(f"{key}: networks of this type are not supported")
    network.flexhpc_head = head
    _pass_tensors(network, model.family, shape, predicts_tokens=model.task == "causal_lm")
    result: nn.Module = network
    return result


def _create(kind: Any, config: Any, model: HuggingFaceModel) -> tuple[Any, set[str]]:
    """Return the network, with pretrained weights if requested, and the parameters of its head.

    The head consists of the layers outside the base model, and of a pooler that the pretrained
    weights lack.
    """
    missing: set[str] = set()
    if model.pretrained is None:
        network = kind.from_config(config, dtype=torch.float32, trust_remote_code=False)
    else:
        network, info = kind.from_pretrained(
            os.path.expanduser(model.pretrained), config=config, dtype=torch.float32, **_LOCAL,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
        missing = {*info["missing_keys"], *(entry[0] for entry in info["mismatched_keys"])}
    head = _outer_parameters(network)
    head |= {name for name in missing if "pooler" in name}
    if lacking := sorted(missing - head):
        raise PointError(
            f"model.pretrained: {model.pretrained} does not match {model.family}: it lacks "
            f"{', '.join(lacking[:3])} ({len(lacking)} in all), or has another shape of them"
        )
    return network, head


def convert_classifier(network: Any, name: str, shape: Shape) -> None:
    """Let a classifier of the package transformers accept and return tensors, in place.

    Other networks are not changed. See :func:`_pass_tensors` for the arguments.
    """
    transformers = sys.modules.get("transformers")  # importing it takes seconds
    if transformers is None or not isinstance(network, transformers.PreTrainedModel):
        return
    if type(network).__name__.endswith("Classification"):
        network.flexhpc_head = _outer_parameters(network)
        _pass_tensors(network, name, shape, predicts_tokens=False)


def _outer_parameters(network: Any) -> set[str]:
    """Return the names of the parameters outside the base model, which are those of the head."""
    base = f"{network.base_model_prefix}."
    return {name for name, _ in network.named_parameters() if not name.startswith(base)}


def _pass_tensors(network: Any, name: str, shape: Shape, *, predicts_tokens: bool) -> None:
    """Register hooks with which a network of transformers is called with and returns a tensor.

    Args:
        network: the network.
        name: name of the network for error messages.
        shape: shape of a sample: (channels, height, width) of an image, or (length,) of token ids,
            where -1 is padding.
        predicts_tokens: whether each token is predicted from the tokens before it.
    """
    # A copy, because other networks may share the configuration, which name_inputs changes.
    config = network.config = copy.copy(network.config)
    start = getattr(config, "bos_token_id", None) or 0
    start = start if start < getattr(config, "vocab_size", 0) else 0  # as in reduced vocabularies
    filler = getattr(config, "pad_token_id", None)
    if filler is not None and not 0 <= filler < getattr(config, "vocab_size", 0):
        filler = None

    def name_inputs(
        module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        (inputs,) = args
        if len(shape) == 3:
            return (), {"pixel_values": inputs}
        ids = inputs.long()
        is_whole = (ids == inputs).all()
        ends = torch.stack([*ids.aminmax(), is_whole])  # so that a GPU is synchronised only once
        lowest, highest, all_whole = ends.tolist()
        if not all_whole:
            raise PointError(
                f"data: {name} takes token ids, but the samples are not whole numbers; set "
                "data.standardise: none"
            )
        if lowest < PADDING or highest >= config.vocab_size:
            raise PointError(
                f"data: the token ids must be from 0 to {config.vocab_size - 1}, or {PADDING} for "
                f"padding, not from {lowest} to {highest}"
            )
        if predicts_tokens:
            ids = torch.cat([torch.full_like(ids[:, :1], start), ids[:, :-1]], dim=1)
            return (), {"input_ids": ids}
        # Decoders classify a sequence at its last token that does not have this id.
        network.config.pad_token_id = filler if lowest == PADDING else -1
        if lowest >= 0:
            return (), {"input_ids": ids}
        if filler is None:
            raise PointError(
                f"model: {name} has no token for padding; set pad_token_id in its configuration "
                "(with hf:PATH, in model.kwargs) to a token that does not end a sequence"
            )
        mask = ids != PADDING
        last = (mask * torch.arange(ids.shape[1], device=ids.device)).argmax(dim=1)
        # The head of decoders is named "score"; encoders do not need the last token.
        if hasattr(network, "score") and (ids.gather(1, last[:, None]) == filler).any():
            raise PointError(
                f"model: a sequence ends in the token for padding of {name}; set pad_token_id in "
                "its configuration (with hf:PATH, in model.kwargs) to another token"
            )
        return (), {"input_ids": ids.where(mask, filler), "attention_mask": mask.long()}

    def take_logits(module: nn.Module, args: Any, outputs: Any) -> Tensor:
        logits: Tensor = outputs.logits
        return logits.transpose(1, 2) if predicts_tokens else logits

    network.register_forward_pre_hook(name_inputs, with_kwargs=True)
    network.register_forward_hook(take_logits)


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
