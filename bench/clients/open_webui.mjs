// Drives a real Open WebUI with a real Chromium, as a person does.
//
//     node open_webui.mjs URL TOKEN_FILE FOLDER MODEL[,MODEL] STEP ...
//
// Steps: say:TEXT  picture:FILE  regenerate  up  down  score:N  edit:TEXT. A screenshot of each step is written to
// FOLDER, and each step's time and the requests that Open WebUI made are printed as JSON, one object a line.
import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const [URL, tokenFile, folder, models, ...steps] = process.argv.slice(2);
const token = readFileSync(tokenFile, "utf8").trim();
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
const say = (row) => console.log(JSON.stringify({ time: Date.now() / 1000, ...row }));
page.on("response", (r) => {
  const path = r.url().slice(URL.length);
  if (/^\/api\/(chat\/|v1\/(evaluations|chats))/.test(path) && r.request().method() !== "GET")
    say({ request: `${r.request().method()} ${path}`, status: r.status() });
});
await page.goto(URL, { waitUntil: "domcontentloaded" });
await page.evaluate((t) => {
  localStorage.token = t;
  localStorage.version = "0.12.4";
  localStorage.setItem("locale", "en-US");
}, token);
await page.goto(`${URL}/?models=${encodeURIComponent(models)}`, { waitUntil: "load" });
await page.locator("#chat-input").waitFor({ timeout: 60000 });
await page.waitForTimeout(3000);
for (const name of ["Okay, Let's Go!", "Get started"]) {
  const button = page.getByText(name);
  if (await button.count()) await button.first().click().catch(() => {});
}

// Wait until no answer is being written: as many "done" action bars as answers.
async function settle() {
  await page.waitForTimeout(1500);
  await page.locator('button[aria-label="Stop"]').waitFor({ state: "detached", timeout: 60000 }).catch(() => {});
  await page.waitForTimeout(2500);
}
const button = (label) => page.locator(`button[aria-label="${label}"]`);
const ACTIONS = {
  async say(text) {
    await page.locator("#chat-input").click();
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
    await settle();
  },
  async picture(file) {
    await page.locator('input[type="file"]').first().setInputFiles(file);
    await page.waitForTimeout(2500);
  },
  async regenerate() {
    await button("Regenerate").last().click({ force: true });
    await page.waitForTimeout(1000);
    const again = page.getByText("Try Again");
    if (await again.count()) await again.last().click();
    await settle();
  },
  async up() {
    await button("Good Response").last().click({ force: true });
    await page.waitForTimeout(2000);
  },
  async down() {
    await button("Bad Response").last().click({ force: true });
    await page.waitForTimeout(2000);
  },
  async score(value) {
    await page.getByText(value, { exact: true }).last().click({ timeout: 5000 });
    await page.waitForTimeout(500);
    await page.locator("textarea").last().fill("short and clear");
    await page.getByRole("button", { name: "Save", exact: true }).last().click();
    await page.waitForTimeout(2000);
  },
  async edit(text) {
    await button("Edit").last().click({ force: true });
    await page.waitForTimeout(1000);
    await page.locator("textarea").last().fill(text);
    await page.getByRole("button", { name: "Save", exact: true }).last().click();
    await page.waitForTimeout(2500);
  },
};
for (const [at, step] of steps.entries()) {
  const [name, ...rest] = step.split(":");
  say({ step });
  try {
    await ACTIONS[name](rest.join(":"));
  } catch (error) {
    say({ failed: step, error: String(error.message).slice(0, 300) });
  }
  await page.screenshot({ path: `${folder}/${at}-${name}.png` });
}
await browser.close();
