"""Faults of a config, and Hydra's own refusals, in this project's form."""

from difflib import get_close_matches

from hydra.errors import MissingConfigException, OverrideParseException

from likeness.config.checkout import checkout
from likeness.config.secrecy import redacted
from likeness.errors import LikenessError

# Lines of Hydra's and OmegaConf's messages that repeat what is said elsewhere, or advise what is refused here.
_NOISE = ("full_key:", "object_type=", "reference_type=", "To append to your config")


def refuse(found: list[str]) -> None:
    """Raises CONFIG when any fault was found."""
    if found:
        raise LikenessError(
            "CONFIG-TARGET" if all("is not allowed" in fault for fault in found) else "CONFIG",
            f"{len(found)} {'fault' if len(found) == 1 else 'faults'} in the config.",
            where="\n".join(found),
            kept="Nothing was opened or computed yet.",
            fix="Correct these options; --cfg job shows every option with its value.",
        )


def _nearest_option(missing: str) -> str | None:
    """``group=option`` for the option of this project that is spelled most like ``group/option``."""
    folder = checkout() / "conf"
    group, _, name = missing.partition("/")
    options = {path.relative_to(folder / group).with_suffix("").as_posix() for path in (folder / group).rglob("*.yaml")}
    close = get_close_matches(name, options, 1)
    return f"{group}={close[0]}" if close else None


def _how_to_spell(override: str) -> str:
    name, given, value = override.partition("=")
    if given:
        return f"""Quote brackets, commas and blanks twice, for the shell and for Hydra: {name}="'{value}'\""""
    groups = sorted(path.parent.name for path in (checkout() / "conf").glob("*/*.yaml") if path.stem == name)
    return "Options are given as name=value" + (f": did you mean {groups[0]}={name}?" if groups else ".")


def refused(error: Exception) -> LikenessError:
    """Hydra's and OmegaConf's own refusals, in this project's form."""
    cause = getattr(error, "__cause__", None) or error
    key = getattr(cause, "full_key", None)
    text = str(error).strip().splitlines()
    what = " ".join(text[:1]) or type(error).__name__
    fix = "Correct the option; --help lists the groups, --cfg job shows every option."
    known = [str(name) for name in getattr(cause, "parent_node", None) or []]
    last = str(key).rsplit(".", 1)[-1]
    if key and last not in known and (close := get_close_matches(last, known, 1)):
        parent = f"{key.rsplit('.', 1)[0]}." if "." in key else ""
        fix = f"Did you mean {parent}{close[0]}? --cfg job shows every option."
    if isinstance(error, MissingConfigException) and (meant := _nearest_option(str(error.missing_cfg_file))):
        fix = f"Did you mean {meant}? --help lists the groups and their options."
    if isinstance(error, OverrideParseException):
        fix = _how_to_spell(error.override)
    below = [] if cause is error else str(cause).splitlines()
    lines = [line.strip() for line in text[1:] + below if not line.strip().startswith(_NOISE)]
    told = "\n".join(line for line in dict.fromkeys(lines) if line and line not in text[:1])
    return LikenessError("CONFIG", redacted(what), where=key or "", cause=redacted(told), fix=redacted(fix))
