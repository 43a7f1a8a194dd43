// Thumbs and what people do with an answer, for any chat page that shows answers of an Escultor gateway.
//
//   <script src="https://gateway/static/thumbs.js"></script>
//   escultor.attach(element, token)                  adds thumbs below the answer, reports copies
//   escultor.send(token, "regenerate")               what your own buttons do: insert_accept, share, undo, …
//   escultor.correct(token, text)                    the answer as its reader would have it
// The token came with the answer (header x-escultor-feedback-token). Nothing is written as HTML.
(() => {
  "use strict";
  const script = document.currentScript;
  const base = script ? new URL(script.src).origin : location.origin;

  const post = (token, body) =>
    fetch(`${base}/v1/feedback/t/${encodeURIComponent(token)}`, {
      method: "POST",
      keepalive: true, // sent even when the page is left
      credentials: "omit",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    }).then((answer) => answer.ok, () => false);

  const send = (token, name) => post(token, { kind: "implicit", name });
  const thumb = (token, value) => post(token, { value, name: "thumb" });
  const remark = (token, text) => post(token, { kind: "comment", text });
  const correct = (token, text) => post(token, { kind: "demonstration", output: { content: text } });

  function attach(element, token) {
    const row = document.createElement("span");
    row.className = "escultor-thumbs";
    let current = null; // true, false, or null for neither
    const buttons = [[true, "\u{1F44D}", "Good answer"], [false, "\u{1F44E}", "Bad answer"]].map(([value, sign, label]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = sign;
      button.setAttribute("aria-label", label);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", async () => {
        const next = current === value ? null : value; // a second press withdraws
        if (!(await thumb(token, next))) return;
        current = next;
        buttons.forEach(([other, otherValue]) => other.setAttribute("aria-pressed", String(current === otherValue)));
      });
      row.append(button);
      return [button, value];
    });
    element.addEventListener("copy", () => send(token, "copy"));
    element.after(row);
    return row;
  }

  window.escultor = { attach, send, thumb, remark, correct };
})();
