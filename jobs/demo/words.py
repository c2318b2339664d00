"""The words and sentence patterns of English and Chinese, as data read in both directions.

grammar.py fills the patterns in, check.py matches texts against the same patterns: what is said can be read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

Names = Mapping[str, tuple[str, ...]]  # key in scenes.py -> its words, the usual one first


@dataclass(frozen=True)
class Language:
    """One language of the grammar.

    slots: the parts of a mention in order, each (name, pattern, required). joiners: between the items of a
    list, the last one before the last item. Patterns of whole sentences: {list} is a list of mentions,
    {mention} a mention without its place, {first} and {second} mentions, {count} such as "two shapes".
    questions: kind -> patterns.
    """

    name: str
    shapes: Names
    plurals: Names
    colours: Names
    sizes: Names
    places: Names
    textures: Names
    relations: Names
    counts: tuple[str, ...]
    numbers: tuple[str, ...]
    yes: tuple[str, str]  # is there? yes, no
    true: tuple[str, str]  # is it so? yes, no
    slots: tuple[tuple[str, str, bool], ...]
    joiners: tuple[str, str]
    stop: str
    listings: tuple[str, ...]
    counted: tuple[str, ...]
    counting: tuple[str, ...]
    placed: tuple[str, ...]
    related: tuple[str, ...]
    background: tuple[str, ...]
    on_background: str
    prompts: tuple[str, ...]
    questions: Mapping[str, tuple[str, ...]]


def polish(text: str) -> str:
    """English made right: articles, number and capitals. Leaves Chinese alone."""
    text = re.sub(r"\ba (?=[aeiou])", "an ", text).replace("there are one", "there is one")
    return re.sub(r"(^|\. )([a-z])", lambda match: match[1] + match[2].upper(), text)


def plain(text: str) -> str:
    """The reverse of `polish`, so far as reading needs it."""
    text = re.sub(r"\ban (?=[aeiou])", "a ", " ".join(text.lower().split()))
    return text.replace("there is one", "there are one")


def _same(*words: str) -> Names:
    return {word: (word,) for word in words}


ENGLISH = Language(
    name="en",
    shapes=_same("circle", "square", "triangle", "star", "cross"),
    plurals={
        "circle": ("circles",),
        "square": ("squares",),
        "triangle": ("triangles",),
        "star": ("stars",),
        "cross": ("crosses",),
    },
    colours=_same("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown"),
    sizes={"small": ("small", "little"), "large": ("large", "big")},
    places={
        **_same("top left", "top middle", "top right", "middle left"),
        "middle middle": ("centre",),
        **_same("middle right", "bottom left", "bottom middle", "bottom right"),
    },
    textures=_same("plain", "striped", "dotted", "checked"),
    relations={
        "above": ("above",),
        "below": ("below",),
        "left": ("to the left of", "left of"),
        "right": ("to the right of", "right of"),
    },
    counts=("no shapes", "one shape", "two shapes", "three shapes", "four shapes"),
    numbers=("zero", "one", "two", "three", "four"),
    yes=("yes", "no"),
    true=("yes", "no"),
    slots=(
        ("article", "a ", True),
        ("size", "{} ", False),
        ("colour", "{} ", False),
        ("shape", "{}", True),
        ("place", " in the {}", False),
    ),
    joiners=(", ", " and "),
    stop=".",
    listings=("{list}", "there is {list}", "the picture shows {list}", "I see {list}"),
    counted=("{count}: {list}", "there are {count}: {list}"),
    counting=("there are {count}",),
    placed=("in the {place} is {mention}", "in the {place} there is {mention}"),
    related=("{first} is {relation} {second}",),
    background=("the background is {texture}",),
    on_background=" on a {texture} background",
    prompts=("Describe the image.", "Describe the picture.", "What is in the image?"),
    questions={
        "count": ("How many shapes are there?",),
        "count of a shape": ("How many {shapes} are there?",),
        "colour of a shape": ("What colour is the {shape}?",),
        "colour at a place": ("What colour is the shape in the {place}?",),
        "shape of a colour": ("Which shape is {colour}?", "What is {colour}?"),
        "shape at a place": ("Which shape is in the {place}?", "What is in the {place}?"),
        "place": ("Where is the {shape}?", "Where is the {colour} {shape}?"),
        "size": ("Is the {shape} small or large?", "Is the {colour} {shape} small or large?"),
        "background": ("What is the background like?",),
        "existence": ("Is there a {colour} {shape}?", "Do you see a {colour} {shape}?"),
        "relation": ("Is the {shape} {relation} the {other}?",),
    },
)

CHINESE = Language(
    name="zh",
    shapes={
        "circle": ("圆形",),
        "square": ("正方形",),
        "triangle": ("三角形",),
        "star": ("星形",),
        "cross": ("十字形",),
    },
    plurals={
        "circle": ("圆形",),
        "square": ("正方形",),
        "triangle": ("三角形",),
        "star": ("星形",),
        "cross": ("十字形",),
    },
    colours={
        "red": ("红色",),
        "orange": ("橙色",),
        "yellow": ("黄色",),
        "green": ("绿色",),
        "blue": ("蓝色",),
        "purple": ("紫色",),
        "pink": ("粉色",),
        "brown": ("棕色",),
    },
    sizes={"small": ("小",), "large": ("大",)},
    places={
        "top left": ("左上角",),
        "top middle": ("上边",),
        "top right": ("右上角",),
        "middle left": ("左边",),
        "middle middle": ("中间",),
        "middle right": ("右边",),
        "bottom left": ("左下角",),
        "bottom middle": ("下边",),
        "bottom right": ("右下角",),
    },
    textures={"plain": ("纯色",), "striped": ("条纹",), "dotted": ("圆点",), "checked": ("方格",)},
    relations={"above": ("上方",), "below": ("下方",), "left": ("左侧",), "right": ("右侧",)},
    counts=("没有图形", "一个图形", "两个图形", "三个图形", "四个图形"),
    numbers=("零个", "一个", "两个", "三个", "四个"),
    yes=("有", "没有"),
    true=("是", "不是"),
    slots=(
        ("article", "一个", True),
        ("place", "{}的", False),
        ("size", "{}", False),
        ("colour", "{}", False),
        ("shape", "{}", True),
    ),
    joiners=("、", "和"),
    stop="。",
    listings=("{list}", "图中有{list}", "可以看到{list}"),
    counted=("{count}:{list}", "图中有{count}:{list}"),
    counting=("图中有{count}",),
    placed=("{place}有{mention}", "在{place}有{mention}"),
    related=("{first}在{second}的{relation}",),
    background=("背景是{texture}的",),
    on_background=",背景是{texture}的",
    prompts=("描述这张图片。", "请描述图片。"),
    questions={
        "count": ("图中有几个图形?",),
        "count of a shape": ("图中有几个{shapes}?",),
        "colour of a shape": ("{shape}是什么颜色?",),
        "colour at a place": ("{place}的图形是什么颜色?",),
        "shape of a colour": ("{colour}的是什么形状?",),
        "shape at a place": ("{place}是什么形状?",),
        "place": ("{shape}在哪里?", "{colour}{shape}在哪里?"),
        "size": ("{shape}是大还是小?", "{colour}{shape}是大还是小?"),
        "background": ("背景是什么样的?",),
        "existence": ("有{colour}{shape}吗?",),
        "relation": ("{shape}在{other}的{relation}吗?",),
    },
)

LANGUAGES = {language.name: language for language in (ENGLISH, CHINESE)}
