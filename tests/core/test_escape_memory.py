"""Texts that wait side by side for their place in a file take what they are, not what they might have needed."""

import subprocess
import sys

HOLD = """
from nightbatch.core.escape import json_string

def held_kb():
    return int(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])

text = "é" * 1_000 + " and so on" * 90
json_string(text)
before = held_kb()
held = [json_string(f"{number} {text}") for number in range(5_000)]
print(held_kb() - before, sum(map(len, held)) // 1024)
"""


def test_texts_hold_no_more_than_they_are() -> None:
    done = subprocess.run([sys.executable, "-c", HOLD], capture_output=True, text=True, check=True)

    held_kb, long_kb = map(int, done.stdout.split())
    assert held_kb < 1.5 * long_kb
