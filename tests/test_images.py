"""Images: what is converted, what is refused, and where a URL may not lead."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from cogbatch.errors import ImageError
from cogbatch.images import ImageLimits, load_image


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has hardly any data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 8)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def gradient(mode: str) -> Image.Image:
    return Image.linear_gradient("L").resize((8, 8)).convert(mode)


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *[("RGB", kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")],
        *[("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("L", "JPEG")],
        *[("LA", "PNG"), ("RGBA", "PNG"), ("RGBA", "WEBP"), ("YCbCr", "JPEG"), ("F", "TIFF")],
    ],
)
def test_every_mode_and_format_becomes_loaded_rgb(mode: str, kind: str) -> None:
    image = load_image(encoded(gradient(mode), kind))
    assert (image.mode, image.size) == ("RGB", (8, 8))
    low, high = image.convert("L").getextrema()
    assert low < 50 < 200 < high  # the gradient is still there


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    wide = Image.new("I;16", (3, 1))
    for x, value in enumerate((0, 257 * 100, 65535)):
        wide.putpixel((x, 0), value)
    for kind in ("PNG", "TIFF"):
        image = load_image(encoded(wide, kind))
        assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]
    big_endian_pgm = b"P5 3 1 65535\n" + struct.pack(">3H", 0, 257 * 100, 65535)
    image = load_image(big_endian_pgm)
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_floats_between_0_and_1_fill_the_range() -> None:
    image = Image.new("F", (2, 1))
    image.putpixel((1, 0), 1.0)
    loaded = load_image(encoded(image, "TIFF"))
    assert [loaded.getpixel((x, 0)) for x in range(2)] == [(0, 0, 0), (255, 255, 255)]


def test_transparency_is_dropped_and_colours_stay() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\x80"):
        image = load_image(encoded(palette, transparency=transparency))
        assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), (0, 255, 0)]
    clear = load_image(encoded(Image.new("RGBA", (1, 1), (10, 20, 30, 0))))
    assert clear.getpixel((0, 0)) == (10, 20, 30)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    image = load_image(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert image.getpixel((4, 4)) == (255, 0, 0)


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert load_image(encoded(Image.new("RGB", (4, 2)), "JPEG", exif=exif)).size == (4, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty, 0 bytes"),
        (b"GIF", "not an image"),
        (b"<html>404</html>", "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (png_header(0, 5), "image bytes: "),
        (png_header(10_000, 10_000), "over the limit of 64000000 pixels"),
        (png_header(30_000, 30_000), "over the limit of 64000000 pixels"),
        (png_header(9_000, 8_000), "9000 x 8000, over the limit"),
        (png_header(50, 50), "truncated or damaged PNG"),
    ],
)
def test_bad_bytes_are_image_errors_of_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_image(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"])
def test_a_truncated_image_is_an_error_and_not_half_grey(kind: str) -> None:
    data = encoded(Image.effect_noise((64, 64), 50).convert("RGB"), kind)
    for length in (len(data) // 2, len(data) * 9 // 10, 20):
        with pytest.raises(ImageError):
            load_image(data[:length])


def test_a_damaged_byte_never_raises_anything_else() -> None:
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP"):
        data = encoded(gradient("RGB"), kind)
        for position in range(0, len(data), 7):
            damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
            with contextlib.suppress(ImageError):
                load_image(damaged)


def test_a_path_loads_and_a_missing_one_says_so(tmp_path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(gradient("RGB")))
    assert load_image(str(path)).size == (8, 8)
    with pytest.raises(ImageError, match=r"missing\.png'.*No such file"):
        load_image(str(tmp_path / "missing.png"))
    with pytest.raises(ImageError, match="not a file"):
        load_image(str(tmp_path))
    with pytest.raises(ImageError, match="over the limit of 10"):
        load_image(str(path), limits=ImageLimits(max_bytes=10))
    with pytest.raises(ImageError, match=r"expected an http\(s\) URL or a local path"):
        load_image("s3://bucket/a.png")
    with pytest.raises(ImageError, match="null"):
        load_image("a\0b")


def test_a_pil_image_is_converted_and_limited() -> None:
    source = gradient("L")
    image = load_image(source)
    assert image.mode == "RGB"
    assert image is not source
    with pytest.raises(ImageError, match="over the limit of 10 pixels"):
        load_image(source, limits=ImageLimits(max_pixels=10))


def test_all_kinds_of_bytes_are_one() -> None:
    data = encoded(gradient("RGB"))
    pixels = load_image(data).tobytes()
    assert load_image(bytearray(data)).tobytes() == pixels
    assert load_image(memoryview(data)).tobytes() == pixels


@pytest.mark.parametrize(("mode", "premultiplied"), [("LA", "La"), ("RGBA", "RGBa")])
def test_premultiplied_colours_are_divided_by_alpha(mode: str, premultiplied: str) -> None:
    image = Image.new(mode, (1, 1), (*[100] * (len(mode) - 1), 128)).convert(premultiplied)
    assert image.getpixel((0, 0))[0] == 50
    assert load_image(image).getpixel((0, 0)) == pytest.approx((100, 100, 100), abs=1)


def test_limits_must_be_positive_and_within_pils_own() -> None:
    with pytest.raises(ValueError, match="max_bytes is 0"):
        ImageLimits(max_bytes=0)
    with pytest.raises(ValueError, match="expected at most 89478485"):
        ImageLimits(max_pixels=10**8)


def test_threads_load_the_same_pixels() -> None:
    data = [encoded(gradient(mode)) for mode in ("RGB", "P", "L", "LA")] * 8 + [b"no image"] * 8

    def load(item: bytes) -> bytes | None:
        try:
            return load_image(item).tobytes()
        except ImageError:
            return None

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(load, data)) == [load(item) for item in data]


def test_threads_share_one_pil_image_that_is_not_yet_decoded() -> None:
    data = encoded(Image.effect_noise((300, 300), 90).convert("RGB"))
    expected = load_image(data).tobytes()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            lazy = Image.open(io.BytesIO(data))
            assert {image.tobytes() for image in pool.map(load_image, [lazy] * 8)} == {expected}


def test_an_unusable_url_is_an_image_error() -> None:
    for url in ("http://", "http://a.example:99999/", "http://[::1"):
        with pytest.raises(ImageError):
            load_image(url)
