"""How large a model is, from its configuration alone: no weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from preflab.model.adapters import adapter_base, base_revision
from preflab.model.files import at_revision, gguf, loading, of_revision, where
from preflab.model.snapshots import final_model


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that time and memory depend on.

    Attributes:
        total: parameters, those that are tied once.
        body: parameters that every token is multiplied with: neither the embedding, which is looked up, nor the head.
        head: parameters of the output head, which only tokens before a response's token meet.
        linear_width: inputs and outputs of all linear layers of the body together; LoRA of rank r adds r times as many.
        kept: numbers that generation keeps of a token (its keys and values).
    """

    total: int
    body: int
    head: int
    hidden: int
    intermediate: int
    layers: int
    linear_width: int
    kept: int

    @property
    def vocabulary(self) -> int:
        return self.head // self.hidden

    def activations(self) -> int:
        """Numbers that training keeps of a token until its gradients are known: inputs of products, norms and gates."""
        return self.layers * (12 * self.hidden + 4 * self.intermediate)


def model_size(name: str) -> ModelSize:
    """The size of a hub's or a local model; of an adapter, its base model's. Raises UserError where it has no
    configuration that can be had without running code that comes with it.
    """
    name = final_model(name) or name
    if base := adapter_base(name):
        name = at_revision(base, base_revision(name))
    with loading(name, "configuration"):
        options = {**gguf(name), **of_revision(name, None)}
        config = AutoConfig.from_pretrained(where(name), trust_remote_code=False, **options)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, trust_remote_code=False
            )
    text = config.get_text_config()
    total = sum(parameter.numel() for parameter in model.parameters())
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    outside = embedding.numel() + (0 if head is embedding else head.numel())
    linear = [weight for name, weight in model.base_model.named_parameters() if weight.ndim == 2]
    width = sum(sum(weight.shape) for weight in linear) - sum(embedding.shape)
    heads = text.num_attention_heads
    kept_heads = getattr(text, "num_key_value_heads", None) or heads
    head_size = getattr(text, "head_dim", None) or text.hidden_size // heads
    return ModelSize(
        total=total,
        body=total - outside,
        head=head.numel(),
        hidden=text.hidden_size,
        intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        layers=text.num_hidden_layers,
        linear_width=width,
        kept=2 * text.num_hidden_layers * kept_heads * head_size,
    )
