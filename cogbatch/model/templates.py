"""CogVLM's four prompt templates (SAT: utils/language.py). Texts only. Travels with every checkpoint."""

from collections.abc import Sequence

# SAT's name of each template -> the name in config.json. SAT's chat has no counterpart in official HF code.
TEMPLATE_NAMES = {"base": "base", "vqa": "vqa", "chat_old": "chat", "chat": "inst"}
# What separates the reply from the prompt, for reading a reply back; keyed by config.json's names.
SEPARATORS = {"base": None, "vqa": " Short answer:", "chat": " Answer:", "inst": "[/INST]"}


def render_prompt(template_version: str, query: str, history: Sequence[tuple[str, str]] = ()) -> str:
    """The text that is encoded behind the image block.

    Args:
        template_version: a name of config.json: base, vqa, chat (SAT's chat_old) or inst (SAT's chat).
        history: earlier (query, answer) turns; base has no turns, so it ignores them; in vqa each turn is
            kept as in the official HF code (SAT drops them).

    Raises:
        ValueError: unknown template.
    """
    if template_version == "base":
        return query
    if template_version == "vqa":
        turns = "".join(f"Question: {q} Short answer: {a}\n" for q, a in history)
        return f"{turns}Question: {query} Short answer:"
    if template_version == "chat":
        turns = "".join(f"Question: {q} Answer: {a}\n" for q, a in history)
        return f"{turns}Question: {query} Answer:"
    if template_version == "inst":
        turns = "".join(f"{q} [/INST] {a} [INST] " for q, a in history)
        return f" [INST] {turns}{query} [/INST] "
    raise ValueError(
        f"unknown template_version {template_version!r}: expected one of {', '.join(SEPARATORS)} "
        "(chat_old of SAT is chat here, chat of SAT is inst)"
    )
