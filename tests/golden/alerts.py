"""
The golden files of what people are told: `python -m tests.golden.alerts` writes them anew.

Of each alert the mail's text and HTML part and Slack's blocks, which the tests compare; and, where Chromium is
installed, a picture of both as a phone shows them, which is for people to look at.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path
from typing import Any

from nightbatch.adapters.notifiers.mail import html_of, text_of
from nightbatch.adapters.notifiers.slack import payload
from nightbatch.ports import Message
from tests.alerts import ALERTS

FOLDER = Path(__file__).parent / "alerts"
PHONE_PX, SLACK_PX, MARGIN_PX = 390, 460, 16


def rendered(message: Message) -> dict[str, str]:
    """Give the content of an alert's golden files by the end of their names."""
    slack = json.dumps(payload(message), indent=1, ensure_ascii=False)
    return {"txt": text_of(message), "html": html_of(message), "json": slack + "\n"}


def main() -> None:
    """Write all of them; git shows what changed."""
    FOLDER.mkdir(exist_ok=True)
    wanted = set(sys.argv[1:]) or set(ALERTS)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    for name in sorted(wanted):
        message = ALERTS[name]()
        for end, content in rendered(message).items():
            (FOLDER / f"{name}.{end}").write_text(content, encoding="utf-8")
        if chromium:
            _picture(chromium, message, FOLDER / f"{name}.png")
        print(f"wrote {name}{' and its picture' if chromium else ''}")
    if not chromium:
        print("the pictures stay as they are: Chromium is not installed")


# --- pictures -------------------------------------------------------------------------------------------------


def _picture(chromium: str, message: Message, file: Path) -> None:
    """Draw the mail on a phone, and Slack beside it."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(_page(message), encoding="utf-8")
        dumped = _run(chromium, "--dump-dom", page.as_uri())
        height = int(dumped.partition("<title>")[2].partition("</title>")[0])
        width = PHONE_PX + SLACK_PX + 3 * MARGIN_PX
        _run(chromium, f"--window-size={width},{height}", f"--screenshot={file}", page.as_uri())
    if quantizer := shutil.which("pngquant"):
        subprocess.run([quantizer, "--force", "--ext", ".png", "--strip", "32", str(file)], check=True)


def _run(chromium: str, *arguments: str) -> str:
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
    done = subprocess.run([chromium, *options, *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout


def _page(message: Message) -> str:
    frames = ((html_of(message), PHONE_PX), (slack_html(payload(message)), SLACK_PX))
    inner = "".join(
        f'<iframe srcdoc="{escape(html)}" width="{width}" style="border:0;margin:{MARGIN_PX}px 0 0 {MARGIN_PX}px;'
        'vertical-align:top"></iframe>'
        for html, width in frames
    )
    script = (
        "onload=()=>{for(const f of document.querySelectorAll('iframe'))"
        "f.height=f.contentDocument.documentElement.scrollHeight;"
        f"document.title=document.documentElement.scrollHeight+{MARGIN_PX}}}"
    )
    return (
        f'<!doctype html><meta charset="utf-8"><body style="margin:0;background:#9aa0a6;white-space:nowrap">{inner}'
        f"<script>{script}</script>"
    )


def slack_html(sent: dict[str, Any]) -> str:
    """Draw Slack's blocks as Slack would, roughly."""
    body = "".join(_block(block) for block in sent["blocks"])
    style = "margin:12px;font:15px/1.46 Lato,Helvetica,Arial,sans-serif;color:#1d1c1d;background:#fff"
    return f'<!doctype html><meta charset="utf-8"><body style="{style}"><b>nightbatch</b> APP{body}'


def _block(block: dict[str, Any]) -> str:
    match block["type"]:
        case "header":
            return f'<p style="font-size:18px;font-weight:900;margin:4px 0">{block["text"]["text"]}</p>'
        case "divider":
            return '<hr style="border:0;border-top:1px solid #ddd">'
        case "context":
            said = "".join(part["text"] for part in block["elements"])
            return f'<p style="font-size:13px;color:#616061;overflow-wrap:anywhere">{said}</p>'
        case "section":
            link = block["text"]["text"].strip("<>").partition("|")
            return f'<p style="margin:4px 0"><a href="{link[0]}" style="color:#1264a3">{link[2]}</a></p>'
    return "".join(map(_rich, block["elements"]))


def _rich(part: dict[str, Any]) -> str:
    said = "".join(
        f"<b>{escape(each['text'])}</b>" if each.get("style") else escape(each["text"]) for each in part["elements"]
    )
    if part["type"] == "rich_text_preformatted":
        look = "background:#f8f8f8;border:1px solid #ddd;border-radius:4px;padding:8px;font-size:12px"
        return f'<pre style="{look};white-space:pre-wrap;overflow-wrap:anywhere">{said}</pre>'
    return f'<div style="white-space:pre-wrap;overflow-wrap:anywhere">{said}</div>'


if __name__ == "__main__":
    main()
