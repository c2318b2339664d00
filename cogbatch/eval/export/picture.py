"""One image as training data holds it: bytes that every consumer decodes to the pixels the model saw."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image

from cogbatch.errors import ImageError
from cogbatch.images import DEFAULT_LIMITS, ImageLimits, encoded_image, load_image
from cogbatch.types import SplitBy

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
MIME_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
MODES = ("L", "RGB", "RGBA")
LOOK_SIDE = 8  # bits of a look: 8 x 8
MIN_LOOK_BITS = 4  # of either value; flatter images, such as blank pages, all look the same


@dataclass(frozen=True)
class Picture:
    """An encoded image and what identifies it.

    Args:
        data: JPEG, PNG or WebP. extension: of these, "jpg", "png" or "webp". width, height: pixels.
        content: sha256 (hex) of size and RGB pixels: the same for every lossless encoding.
        look: the same for images that look alike (difference hash); content where an image is nearly flat.
    """

    data: bytes
    extension: str
    width: int
    height: int
    content: str
    look: str

    @property
    def name(self) -> str:
        """A file name that comes from the content alone."""
        return f"{self.content[:32]}.{self.extension}"

    def group(self, split_by: SplitBy) -> str:
        """What decides on which side of a split it lies."""
        return self.look if split_by == "perceptual" else self.content


def read_picture(
    source: str | bytes,
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    modes: Collection[str] = MODES,
    always_png: bool = False,
) -> Picture:
    """The image behind a row's value. Its bytes stay as they are where PIL's convert("RGB"), which consumers
    call, gives the pixels that the model saw: one frame of JPEG, PNG or WebP in a mode of `modes` and without
    an EXIF orientation, which some consumers apply and the model's own code does not. Others become PNG.

    Raises ImageError: as load_image.
    """
    data = encoded_image(source, limits=limits)
    image = load_image(data, limits=limits)
    content = hashlib.sha256(f"{image.width}x{image.height}:".encode() + image.tobytes()).hexdigest()
    extension = None if always_png else _kept_extension(data, modes)
    if extension is None:
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        data, extension = buffer.getvalue(), "png"
    return Picture(data, extension, image.width, image.height, content, _look(image) or content)


def _kept_extension(data: bytes, modes: Collection[str]) -> str | None:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            plain = (
                opened.mode in modes
                and getattr(opened, "n_frames", 1) == 1
                and opened.getexif().get(ExifTags.Base.Orientation, 1) == 1
            )
            return EXTENSIONS.get(opened.format or "") if plain else None
    except (OSError, SyntaxError, ValueError) as err:  # EXIF that cannot be parsed
        raise ImageError(f"image bytes: {' '.join(str(err).split()) or type(err).__name__}") from err


def _look(image: Image.Image) -> str | None:
    """Which of neighbouring cells is brighter, 64 bits; None for an image that is nearly flat."""
    cells = image.convert("L").resize((LOOK_SIDE + 1, LOOK_SIDE), Image.Resampling.BOX)
    grey = np.asarray(cells, dtype=np.int16)
    bits = grey[:, 1:] > grey[:, :-1]
    if not MIN_LOOK_BITS <= bits.sum() <= bits.size - MIN_LOOK_BITS:
        return None
    return np.packbits(bits).tobytes().hex()
