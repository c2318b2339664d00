"""All formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from cogbatch.eval.export.coco_captions import COCO_CAPTIONS
from cogbatch.eval.export.dpo import DPO
from cogbatch.eval.export.format import Format
from cogbatch.eval.export.hf_dataset import HF_DATASET
from cogbatch.eval.export.llava import LLAVA
from cogbatch.eval.export.openai_chat import OPENAI_CHAT
from cogbatch.eval.export.sharegpt import SHAREGPT
from cogbatch.eval.export.webdataset import WEBDATASET
from cogbatch.types import FormatName

FORMATS: Mapping[FormatName, Format] = {
    "llava": LLAVA,
    "sharegpt": SHAREGPT,
    "openai-chat": OPENAI_CHAT,
    "dpo": DPO,
    "hf-dataset": HF_DATASET,
    "webdataset": WEBDATASET,
    "coco-captions": COCO_CAPTIONS,
}
