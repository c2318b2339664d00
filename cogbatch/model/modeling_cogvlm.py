"""CogVLM v1 and v2 for transformers 5: embeddings, head, generation. Travels with every checkpoint.

The layers are in decoder.py, the vision tower in visual.py. Imports nothing but torch, transformers and its
sibling files.

Shapes: B batch, S sequence, H hidden, A heads, K key-value heads, D head size, P patches, V vocabulary.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the field's usual name
from transformers import Cache, DynamicCache, GenerationMixin, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_cogvlm import CogVLMConfig
from .decoder import Attend, DecoderLayer, RMSNorm, Spans, image_positions, vision_spans
from .processing_cogvlm import build_conversation
from .visual import VisionModel


def attend_by_interface(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **kwargs: Any
) -> torch.Tensor:
    """Attention through transformers' registry (eager, sdpa, flash, flex)."""
    attention = ALL_ATTENTION_FUNCTIONS.get_interface(module.config._attn_implementation, eager_attention)
    context, _ = attention(module, query, key, value, mask, dropout=0.0, scaling=module.scaling, **kwargs)
    return context.flatten(2)


def eager_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **kwargs: Any,  # noqa: ARG001 - the registry passes dropout and more
) -> tuple[torch.Tensor, torch.Tensor]:
    """The plain formula, for attn_implementation="eager"."""
    key = key.repeat_interleave(module.num_key_value_groups, dim=1)
    value = value.repeat_interleave(module.num_key_value_groups, dim=1)
    scores = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights @ value).transpose(1, 2), weights


class CogVLMPreTrainedModel(PreTrainedModel):
    config_class = CogVLMConfig
    base_model_prefix = "model"
    input_modalities = ("image", "text")
    _no_split_modules = ["DecoderLayer", "VisionLayer"]  # noqa: RUF012 - transformers' own convention
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    # Written for the official code, which needs them; this code computes its own (see CogVLMModel.rotary).
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq$"]  # noqa: RUF012

    def _init_weights(self, module: Any) -> None:
        std = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.normal_(module.weight, std=std)
        elif isinstance(module, RMSNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, VisionModel):
            nn.init.normal_(module.boi, std=std)
            nn.init.normal_(module.eoi, std=std)
            nn.init.normal_(module.patch_embedding.cls_embedding, std=std)
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            nn.init.zeros_(bias)


class CogVLMModel(CogVLMPreTrainedModel):
    """Embeddings, layers and final norm: ids and images to hidden states."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([DecoderLayer(config, i) for i in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.vision = VisionModel(config)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[B, 3, px, px] normalised pixels -> [B, P + 2, H] embeddings, boi and eoi included."""
        return self.vision(pixel_values.to(self.vision.boi.dtype))

    def embed(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, image_features: torch.Tensor | None
    ) -> torch.Tensor:
        """Token embeddings [B, S, H] with the image features put where token_type_ids is 1."""
        embeds = self.embed_tokens(input_ids)
        if image_features is None:
            return embeds
        places = (token_type_ids == 1).unsqueeze(-1)
        features = image_features.to(device=embeds.device, dtype=embeds.dtype)
        if int(places.sum()) * features.shape[-1] != features.numel():
            raise ValueError(
                f"token_type_ids mark {int(places.sum())} image tokens, but {features.shape[0]} image(s) of "
                f"{features.shape[1]} tokens (boi, patches, eoi) were given"
            )
        return embeds.masked_scatter(places, features)

    def rotary(self, position_ids: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """cos and sin, each [B, 1, S, D] in dtype.

        Computed here and never stored: a non-persistent buffer would come back from from_pretrained as
        uninitialised memory, and rounded tables in 16-bit checkpoints should not decide (see rope_inv_freq).
        """
        config = self.config
        table_dtype = getattr(torch, config.rope_dtype)
        if config.rope_inv_freq is not None:
            inv_freq = torch.tensor(config.rope_inv_freq, dtype=table_dtype, device=position_ids.device)
        else:
            steps = torch.arange(0, config.head_dim, 2, device=position_ids.device).float() / config.head_dim
            inv_freq = (1.0 / config.rope_theta**steps).to(table_dtype)
        angles = position_ids.to(table_dtype)[:, None, :, None] * inv_freq  # [B, 1, S, D / 2]
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def run_layers(
        self, embeds: torch.Tensor, position_ids: torch.Tensor, spans: Spans, attend: Attend
    ) -> torch.Tensor:
        """[B, S, H] embeddings through every layer and the final norm; `attend` owns keys and values."""
        rotary = self.rotary(position_ids, embeds.dtype)
        hidden = embeds
        for layer in self.layers:
            hidden = layer(hidden, spans, rotary, attend)
        return self.norm(hidden)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        image_features: torch.Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        (batch, length), device = given.shape[:2], given.device
        if use_cache if use_cache is not None else self.config.use_cache:
            past_key_values = DynamicCache(config=self.config) if past_key_values is None else past_key_values
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        if token_type_ids is None:
            token_type_ids = torch.zeros(batch, past_length + length, dtype=torch.long, device=device)
        if position_ids is None:
            if token_type_ids.shape[1] != past_length + length:
                raise ValueError(
                    f"position_ids are needed after {past_length} cached tokens, or token_type_ids of the "
                    f"whole sequence ({past_length + length} tokens; got {token_type_ids.shape[1]})"
                )
            mask = attention_mask if attention_mask is not None and attention_mask.dim() == 2 else None
            position_ids = image_positions(token_type_ids, mask)[:, -length:]
        token_type_ids = token_type_ids[:, -length:]
        embeds = inputs_embeds
        if embeds is None:
            embeds = self.embed(given, token_type_ids, image_features)
        # position_ids are withheld from the mask: repeated image positions look like packed sequences to it.
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
        )

        def attend(
            module: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
        ) -> torch.Tensor:
            if past_key_values is not None:
                key, value = past_key_values.update(key, value, module.layer_idx)
            return attend_by_interface(module, query, key, value, mask, **kwargs)

        spans = vision_spans(token_type_ids) if length > 1 else []
        hidden = self.run_layers(embeds, position_ids, spans, attend)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=past_key_values)


class CogVLMForCausalLM(CogVLMPreTrainedModel, GenerationMixin):
    """The language model head, generation, and the thin wrappers that CogVLM snippets use."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.model = CogVLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """[B, 3, px, px] normalised pixels -> [B, P + 2, H] embeddings, boi and eoi included."""
        return self.model.get_image_features(pixel_values)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        images: list[list[torch.Tensor]] | None = None,
        image_features: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, S, V] in fp32.

        Args:
            input_ids: [B, S]; ids under image tokens are ignored.
            token_type_ids: [B, S]; 1 on boi, patches and eoi. None: text only.
            pixel_values: [number of images, 3, px, px], in the order of the rows that show one.
            attention_mask: [B, S], 0 on padding. position_ids: [B, S], derived from token_type_ids when None.
            images: the official layout of the same pixels: a list of at most one [3, px, px] per row.
            image_features: [number of images, P + 2, H] as of get_image_features, instead of pixels.
            logits_to_keep: only that many last positions, or an index tensor; 0 keeps all.
        """
        pixel_values = _pixels(pixel_values, images)
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
        outputs = self.model(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            image_features=image_features,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden[:, kept]).float()
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=outputs.past_key_values)

    @torch.no_grad()
    def generate(self, inputs: torch.Tensor | None = None, **kwargs: Any) -> Any:
        """transformers' generate; every image is encoded once, however many sequences are asked for.

        Right-padded prompts are turned into left-padded ones first (their last column would otherwise be
        padding), so the returned sequences carry their padding in front.
        """
        if inputs is not None:
            kwargs["input_ids"] = inputs
        pixel_values = _pixels(kwargs.pop("pixel_values", None), kwargs.pop("images", None))
        if pixel_values is not None:
            kwargs["image_features"] = self.get_image_features(pixel_values.to(self.device))
        ids = kwargs.get("input_ids")
        if ids is not None and kwargs.get("attention_mask") is None and kwargs.get("past_key_values") is None:
            # transformers would infer a mask that hides image tokens, whose placeholder is the pad id.
            real = ids != self.config.pad_token_id
            if kwargs.get("token_type_ids") is not None:
                real = real | (kwargs["token_type_ids"] == 1)
            kwargs["attention_mask"] = _mask_outer_padding(real)
        mask = kwargs.get("attention_mask")
        if kwargs.get("past_key_values") is None and mask is not None and bool((mask[:, -1] == 0).any()):
            for name in ("input_ids", "token_type_ids", "position_ids", "attention_mask"):
                if kwargs.get(name) is not None:
                    kwargs[name] = _padding_to_front(kwargs[name], mask)
        return super().generate(**kwargs)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        inputs = super().prepare_inputs_for_generation(
            input_ids, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            inputs.pop("image_features", None)  # already in the cache
        return inputs

    def _prepare_position_ids_for_generation(
        self, inputs_tensor: torch.Tensor, model_kwargs: dict[str, Any]
    ) -> torch.Tensor:
        # generate would count positions one by one; patches share theirs (see image_positions).
        token_types = model_kwargs.get("token_type_ids")
        if token_types is None:
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)
        return image_positions(token_types, model_kwargs.get("attention_mask"))

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> dict[str, Any]:
        before = model_kwargs.get("token_type_ids")
        model_kwargs = super()._update_model_kwargs_for_generation(outputs, model_kwargs, *args, **kwargs)
        if before is not None:  # generated tokens are text, also right behind an image
            model_kwargs["token_type_ids"][:, before.shape[1] :] = 0
        return model_kwargs

    def build_conversation_input_ids(
        self,
        tokenizer: Any,
        *,
        query: str,
        history: list[tuple[str, str]] | None = None,
        images: list[Any] | None = None,
        template_version: str | None = None,
    ) -> dict[str, Any]:
        """The call of every CogVLM snippet: unbatched input_ids, token_type_ids, attention_mask and images.

        images: at most one PIL image. Returns 1-D tensors, and images as a list of [3, px, px] tensors.
        """
        return build_conversation(
            tokenizer,
            query=query,
            history=history or [],
            images=images or [],
            template_version=template_version or self.config.template_version,
            config=self.config,
        )


def _pixels(
    pixel_values: torch.Tensor | None, images: list[list[torch.Tensor]] | None
) -> torch.Tensor | None:
    """One [N, 3, px, px] tensor from either form of input; None when there is no image."""
    if images is None:
        return pixel_values
    if pixel_values is not None:
        raise ValueError("give pixel_values or images, not both")
    flat = [image for row in images for image in (row or [])]
    return torch.stack(flat) if flat else None


def _mask_outer_padding(real: torch.Tensor) -> torch.Tensor:
    """[B, S] mask that is 0 before the first and behind the last real token of a row."""
    begun, unfinished = real.cumsum(1) > 0, real.flip(1).cumsum(1).flip(1) > 0
    return (begun & unfinished).long()


def _padding_to_front(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Moves the columns where mask is 0 to the front of each row, keeping the order of the rest."""
    order = mask.long().argsort(dim=1, stable=True).to(values.device)
    return values.gather(1, order)


CogVLMForCausalLM.register_for_auto_class("AutoModelForCausalLM")
