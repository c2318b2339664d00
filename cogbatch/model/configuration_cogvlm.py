"""CogVLM's configuration for transformers: v1 and v2 differ in values only. Travels with every checkpoint.

Keys are those of the official HF repositories; the ones that official code keeps in class defaults
(grouped heads, rotary base, convolution) are explicit here, so that one class reads both versions.
"""

from typing import Any

from transformers import PreTrainedConfig


class CogVLMVisionConfig(PreTrainedConfig):
    """EVA2-CLIP and the gated projection behind it.

    image_size, patch_size: pixels. num_positions: (image_size / patch_size)^2 + 1 (the cls position).
    downsample: v2 halves the patch grid on each side by a strided convolution before the projection.
    """

    model_type = "cogvlm_vision"
    base_config_key = "vision_config"

    dropout_prob: float = 0.0
    hidden_act: str = "gelu"
    hidden_size: int = 1792
    image_size: int = 490
    in_channels: int = 3
    intermediate_size: int = 15360
    layer_norm_eps: float = 1e-6
    num_heads: int = 16
    num_hidden_layers: int = 63
    num_positions: int = 1226
    patch_size: int = 14
    downsample: bool = False

    @property
    def num_patches(self) -> int:
        """Vision tokens per image between boi and eoi."""
        side = self.image_size // self.patch_size
        return (side // 2) ** 2 if self.downsample else side**2


class CogVLMConfig(PreTrainedConfig):
    """CogVLM v1 (the defaults) and CogVLM2.

    num_multi_query_heads: key and value heads (the official v2 name); 0 means num_attention_heads, v1's.
    vision_expert_qkv_bias: v2's visual expert has a bias on query, key and value, the language one not.
    num_vision_expert_layers: layers 0..n-1 own a visual expert; 0 means all. v1 code stops at 32.
    rope_inv_freq: rotary frequencies to use instead of those of rope_theta, computed in rope_dtype.
    template_version: chat | vqa | base, the official names; "inst" is SAT's own chat ("[INST]"), which
        official code does not know.
    """

    model_type = "cogvlm"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 - transformers' own convention
    sub_configs = {"vision_config": CogVLMVisionConfig}  # noqa: RUF012

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_multi_query_heads: int = 0
    num_vision_expert_layers: int = 0
    vision_expert_qkv_bias: bool = False
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    initializer_range: float = 0.02
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_inv_freq: list[float] | None = None
    rope_dtype: str = "float32"
    template_version: str = "chat"
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int = 1
    eos_token_id: int | list[int] = 2
    pad_token_id: int = 0
    vision_config: Any = None  # a CogVLMVisionConfig once initialised

    def __post_init__(self, **kwargs: Any) -> None:
        if not self.num_multi_query_heads:
            self.num_multi_query_heads = self.num_attention_heads
        if not self.num_vision_expert_layers:
            self.num_vision_expert_layers = self.num_hidden_layers
        if not isinstance(self.vision_config, CogVLMVisionConfig):
            self.vision_config = CogVLMVisionConfig(**(self.vision_config or {}))
        super().__post_init__(**kwargs)

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def num_image_tokens(self) -> int:
        """Tokens that one image takes in the sequence: boi, patches, eoi."""
        return self.vision_config.num_patches + 2


CogVLMConfig.register_for_auto_class()
