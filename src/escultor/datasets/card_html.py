"""The card as one page that needs no other file."""

from __future__ import annotations

from html import escape
from typing import Any

from escultor.datasets.cards import examples, lines, tables

STYLE = """
:root{color-scheme:light dark;--paper:#faf8f5;--ink:#1d1c1a;--soft:#5f5b55;--line:#e4dfd7}
@media (prefers-color-scheme:dark){:root{--paper:#151413;--ink:#ece8e1;--soft:#aaa49a;--line:#3a3631}}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,sans-serif;
font-variant-numeric:tabular-nums}
main{max-width:1000px;margin:0 auto;padding:48px clamp(18px,4vw,48px)}
h1{font:400 40px/1.15 Georgia,serif;margin:0}
h2{font:400 24px/1.2 Georgia,serif;margin:48px 0 12px}
code,.soft{color:var(--soft);font-size:13px}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;padding:7px 14px 7px 0;border-bottom:1px solid var(--line);vertical-align:top;
overflow-wrap:anywhere}
summary{cursor:pointer;padding:6px 0}
"""


def page(card: dict[str, Any]) -> str:
    """The card as HTML. All that comes from data is escaped."""
    parts = [
        f"<h1>{escape(card['name'])}</h1><p><code>{escape(card['hash'])}</code></p>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines(card)) + "</ul>",
    ]
    for title, heads, rows in tables(card):
        parts.append(f"<section><h2>{escape(title)}</h2>{_table(heads, rows)}</section>")
    if left := list(examples(card)):
        parts.append("<section><h2>Examples of what was left out</h2>")
        for step, rows in left:
            table = _table(["Reason", "Source", "Row"], rows)
            parts.append(f"<details><summary>{escape(step)}</summary>{table}</details>")
        parts.append("</section>")
    title = escape(card["name"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>{''.join(parts)}</main></body></html>\n"
    )


def _table(heads: list[str], rows: list[list[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
