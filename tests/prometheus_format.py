"""Reads Prometheus's text format, and refuses what is not in it."""

import re

__all__ = ["parsed"]

NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r"[a-zA-Z_][a-zA-Z0-9_]*"
VALUE = r'"((?:[^"\\\n]|\\[\\"n])*)"'
NUMBER = r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf)"
SAMPLE = re.compile(rf"({NAME})(?:\{{((?:{LABEL}={VALUE},?)*)\}})? ({NUMBER})(?: -?\d+)?")


def parsed(text: str) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """By metric and labels, the values of a text in Prometheus's format 0.0.4, of whose rules each is checked: a line
    ends with a line feed, HELP and TYPE come once and before a metric's samples, which are not interrupted, and no two
    have the same labels."""
    assert text.endswith("\n")
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    helped: set[str] = set()
    for line in text[:-1].split("\n"):
        if said := re.fullmatch(rf"# HELP ({NAME}) ((?:[^\\]|\\[\\n])*)", line):
            assert said[1] not in helped
            helped.add(said[1])
        elif said := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram|summary|untyped)", line):
            assert said[1] in helped
            assert said[1] not in found
            found[said[1]] = {}
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == ([*found] or [None])[-1]
            pairs = re.findall(rf"({LABEL})={VALUE}", sample[2] or "")
            labels = tuple(
                (name, re.sub(r"\\(.)", lambda m: {"n": "\n"}.get(m[1], m[1]), value)) for name, value in pairs
            )
            assert len({name for name, _ in labels}) == len(labels)
            assert labels not in found[sample[1]], "the same series twice"
            found[sample[1]][labels] = float(sample[4])
    assert all(found.values())
    return found
