"""The script in a real browser (Chromium, headless): a page elsewhere, clicks, copies, hostile text."""

import json
import shutil
import subprocess

import httpx2
import pytest
from gateway_side import serving

from escultor.types import Correction, Feedback, Implicit, Rating, Remark, Revocation

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ALONE = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
EVIL = '<img src=x onerror="document.title=1">'

PAGE = """<!doctype html><p id="answer">an answer</p><script src="URL/static/thumbs.js"></script><script>
(async () => {
  const token = TOKEN, answer = document.getElementById("answer");
  const row = escultor.attach(answer, token), [up, down] = row.querySelectorAll("button");
  const pressed = async (button) => { button.click(); await new Promise((done) => setTimeout(done, 400)); };
  await pressed(up); await pressed(down);
  const state = [up, down].map((button) => button.getAttribute("aria-pressed")).join();
  await pressed(down);
  answer.dispatchEvent(new ClipboardEvent("copy", { bubbles: true }));
  await escultor.remark(token, EVIL);
  await escultor.correct(token, EVIL);
  await escultor.send(token, "share");
  const bad = await escultor.thumb("forged.token", true);
  document.body.dataset.told = JSON.stringify({ state, bad, images: document.images.length });
})();
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (Debian: apt-get install chromium)")
def test_a_page_on_another_origin_says_what_its_reader_does(tmp_path):
    with serving(tmp_path) as running:
        ask = {"model": "escultor", "messages": [{"role": "user", "content": "hi"}], "user": "ann"}
        answer = httpx2.post(f"{running.url}/v1/chat/completions", json=ask)
        token = answer.headers["x-escultor-feedback-token"]
        page = PAGE.replace("URL", running.url).replace("TOKEN", json.dumps(token))
        (tmp_path / "page.html").write_text(page.replace("EVIL", json.dumps(EVIL)))
        command = [str(CHROMIUM), *ALONE.split(), f"--user-data-dir={tmp_path / 'profile'}"]
        command += ["--virtual-time-budget=15000", "--dump-dom", f"file://{tmp_path / 'page.html'}"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert "data-told=" in shown, shown
        for told in (
            "&quot;state&quot;:&quot;false,true&quot;",
            "&quot;bad&quot;:false",
            "&quot;images&quot;:0",
        ):
            assert told in shown
        said = [event for _, event in running.log.read(Feedback, target=answer.json()["id"])]
    assert [(type(e), getattr(e, "value", None)) for e in said if isinstance(e, Rating | Revocation)] == [
        (Rating, True), (Rating, False), (Revocation, None),
    ]  # fmt: skip
    assert {e.event.value for e in said if isinstance(e, Implicit)} == {"copy", "share"}
    assert [e.text for e in said if isinstance(e, Remark | Correction)] == [EVIL, EVIL]
    assert len({e.subject for e in said}) == 1
