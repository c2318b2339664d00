"""A picture is what the model saw, whatever its consumer does; its names come from its pixels."""

from __future__ import annotations

import io

import pytest
from exported import encoded, noise
from PIL import Image, ImageOps

from cogbatch.errors import ImageError
from cogbatch.eval.export.picture import Picture, read_picture
from cogbatch.images import load_image


def opened(picture: Picture) -> Image.Image:
    return Image.open(io.BytesIO(picture.data))


@pytest.mark.parametrize(
    ("kind", "extension"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp")], ids=["png", "jpeg", "webp"]
)
def test_bytes_that_consumers_read_stay_as_they_are(kind: str, extension: str) -> None:
    data = encoded(noise(1), kind)
    picture = read_picture(data)
    assert (picture.data, picture.extension) == (data, extension)
    assert (picture.width, picture.height) == (24, 18)
    assert picture.name == f"{picture.content[:32]}.{extension}"


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(1), "JPEG", exif=exif, quality=95)


def animated() -> bytes:
    return encoded(noise(1), "WEBP", save_all=True, append_images=[noise(2)], lossless=True)


@pytest.mark.parametrize(
    "data",
    [
        encoded(noise(1), "BMP"),
        encoded(noise(1), "TIFF"),
        encoded(noise(1), "GIF"),
        encoded(noise(1).convert("CMYK"), "JPEG"),
        encoded(noise(1).convert("P"), "PNG"),
        encoded(noise(1).convert("L").convert("I;16"), "PNG"),
        rotated(),
        animated(),
    ],
    ids=["bmp", "tiff", "gif", "cmyk", "palette", "16 bit", "rotated", "animated"],
)
def test_everything_else_becomes_png_with_the_pixels_that_the_model_saw(data: bytes) -> None:
    picture = read_picture(data)
    assert picture.extension == "png"
    consumed = ImageOps.exif_transpose(opened(picture)).convert("RGB")
    assert consumed.tobytes() == load_image(data).tobytes()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_kept_bytes_decode_to_what_the_model_saw(kind: str, mode: str) -> None:
    if (kind, mode) == ("JPEG", "RGBA"):
        return
    data = encoded(noise(1).convert(mode), kind)
    consumed = ImageOps.exif_transpose(opened(read_picture(data))).convert("RGB")
    assert consumed.tobytes() == load_image(data).tobytes()


def test_content_is_of_pixels_not_of_encoding() -> None:
    image = noise(1)
    same = [
        encoded(image),
        encoded(image, compress_level=0),
        encoded(image, "BMP"),
        encoded(image, "WEBP", lossless=True),
    ]
    assert len({read_picture(data).content for data in same}) == 1
    other = image.copy()
    other.putpixel((0, 0), (1, 2, 3))
    assert read_picture(encoded(other)).content != read_picture(same[0]).content
    turned = Image.frombytes("RGB", (18, 24), image.tobytes())  # the same bytes in another shape
    assert read_picture(encoded(turned)).content != read_picture(same[0]).content


def test_a_look_survives_another_encoding_and_flat_images_have_none() -> None:
    image = noise(3, size=(9, 8)).resize((180, 160), Image.Resampling.NEAREST)
    first = read_picture(encoded(image))
    again = read_picture(encoded(image.resize((90, 80), Image.Resampling.BOX), "JPEG", quality=90))
    assert first.look == again.look
    assert first.content != again.content
    white, black = (read_picture(encoded(Image.new("RGB", (9, 9), colour))) for colour in ("white", "black"))
    assert white.look == white.content != black.look
    assert first.group("perceptual") != first.group("pixels") == first.content


def test_always_png_re_encodes_without_loss() -> None:
    data = encoded(noise(1), "JPEG")
    picture = read_picture(data, always_png=True)
    assert picture.extension == "png"
    assert opened(picture).tobytes() == load_image(data).tobytes()


@pytest.mark.parametrize("data", [b"", b"no image", encoded(noise(1))[:200]], ids=["empty", "text", "cut"])
def test_what_is_no_image_is_an_image_error(data: bytes) -> None:
    with pytest.raises(ImageError):
        read_picture(data)
