"""Reads the object that `peat demo --json` prints and fails unless it shows a whole, quick, converged run."""

import json
import sys

# The sample: 50 aircraft, 18,683 positions, 200 edits of ours that run against them.
DOCUMENTS = 50
UPDATES = 18_683 + 200
SECONDS = 60


def main():
    text = sys.stdin.read()
    try:
        verdict = json.loads(text)
    except ValueError as error:
        return f"demo: not one JSON object: {error}: {text[:200]!r}"
    if not isinstance(verdict, dict):
        return f"demo: not one JSON object: {text[:200]!r}"
    numbers = ("documents", "updates", "frames", "bytes_sent", "bytes_received", "elapsed_ms")
    wrong = [f"{name} is not a number above 0" for name in numbers if not positive(verdict.get(name))]
    if verdict.get("converged") is not True:
        wrong.append("the two stores are not equal")
    if not wrong:
        if verdict["documents"] != DOCUMENTS:
            wrong.append(f"{verdict['documents']} documents instead of {DOCUMENTS}")
        if verdict["updates"] < UPDATES:
            wrong.append(f"{verdict['updates']} updates; at least {UPDATES} were made")
        if verdict["elapsed_ms"] > SECONDS * 1000:
            wrong.append(f"took {verdict['elapsed_ms']} ms; at most {SECONDS} s are allowed")
    if wrong:
        return "demo: " + "; ".join(wrong)
    print(f"demo: equal: {json.dumps(verdict)}")
    return None


def positive(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


if __name__ == "__main__":
    sys.exit(main())
