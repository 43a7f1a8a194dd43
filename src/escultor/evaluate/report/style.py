"""The report's one stylesheet: light and dark, from 380 pixels up, one accent, no font to fetch."""

STYLE = """
:root{color-scheme:light dark;--paper:#faf8f5;--card:#fff;--ink:#1d1c1a;--soft:#5f5b55;--line:#e4dfd7;
--accent:#a8452b;--tint:#a8452b14;--on:#fff;
--sans:ui-sans-serif,system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif;
--serif:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua",Georgia,"DejaVu Serif",serif;
--mono:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
@media (prefers-color-scheme:dark){:root{--paper:#151413;--card:#1f1d1b;--ink:#ece8e1;--soft:#aaa49a;
--line:#3a3631;--accent:#f0946f;--tint:#f0946f1f;--on:#1d1c1a}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 var(--sans);
-webkit-text-size-adjust:100%;font-variant-numeric:tabular-nums}
main,header,footer{max-width:1280px;margin:0 auto;padding:0 clamp(18px,4vw,56px)}
header{padding-top:clamp(40px,7vw,88px)}
h1,h2,h3,h4,p,dl,dd,ol,ul,pre,figure{margin:0;padding:0}
h1{font:400 clamp(30px,4.6vw,50px)/1.12 var(--serif);letter-spacing:-.015em;text-wrap:balance}
h2{font:400 clamp(23px,2.6vw,29px)/1.2 var(--serif);letter-spacing:-.01em}
h3{font-size:16px;font-weight:600}
h4{font-size:13px;font-weight:600}
small{font-size:12px;font-weight:400;color:var(--soft)}
.sr{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.generated,.lead,.caption,.none,footer{color:var(--soft)}
.generated{margin-top:12px}
.lead{max-width:68ch;margin-top:8px}
.caption{font-size:13px}
section{margin-top:clamp(56px,7vw,96px)}
section>h2+*,section>.lead+*{margin-top:28px}
footer{padding-top:72px;padding-bottom:56px;font-size:13px}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
header>.deployed{margin-top:40px;font-size:17px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:0 28px;margin-top:18px;
border-block:1px solid var(--line)}
.tiles>div{padding:18px 0}
.tiles dt{font-size:13px;font-weight:600}
.tiles dd{font:400 32px/1.2 var(--serif);margin-top:6px}
.tiles dd span{display:block;font:13px/1.4 var(--sans);color:var(--soft);margin-top:4px}
"""

LOOP = """
.loop{list-style:none;display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);column-gap:20px}
.loop li{position:relative;font-size:14px;line-height:1.45}
.loop li::before{content:"";position:absolute;left:34px;right:-14px;top:13px;height:1px;
background:var(--line)}
.loop li:last-child::before{right:0}
.loop .node{position:relative;display:grid;place-items:center;width:27px;height:27px;border-radius:50%;
background:var(--accent);color:var(--on);font-size:12px;font-weight:600;margin-bottom:12px}
.loop .reused .node{background:var(--paper);color:var(--accent);box-shadow:inset 0 0 0 1.5px var(--accent)}
.loop strong{display:block;font-weight:600;font-size:15px}
.loop .time{font-size:13px;color:var(--soft)}
.loop p{color:var(--soft);margin-top:6px;overflow-wrap:anywhere}
.round{position:relative;height:22px;margin:14px 6% 26px 13px;border:1px solid var(--line);border-top:0;
border-radius:0 0 12px 12px;text-align:center}
.round span{position:relative;top:9px;padding:0 12px;background:var(--paper);font-size:13px;color:var(--soft)}
.round::before{content:"";position:absolute;left:-5px;top:-1px;border:4.5px solid transparent;border-top:0;
border-bottom:7px solid var(--soft)}
@media (max-width:900px){.loop{display:block}.loop li{padding:0 0 22px 44px}
.loop .node{position:absolute;left:0;top:0;margin:0}
.loop li::before{left:13px;right:auto;top:31px;bottom:4px;width:1px;height:auto}
.loop strong{display:inline;margin-right:10px}.loop p{margin-top:2px}
.round{height:auto;border:0;margin:0 0 16px 44px;text-align:left}.round::before{left:-36px;top:8px}
.round span{top:0;padding:0}}
"""

TABLES = """
table{border-collapse:collapse;width:100%}
.versions{font-size:14px}
.versions th,.versions td{padding:12px 0 12px 14px;text-align:right;vertical-align:top;white-space:nowrap}
.versions th:first-child{text-align:left;padding-left:0;white-space:normal;overflow-wrap:anywhere}
.versions td:last-child,.versions th:last-child{text-align:left;padding-left:22px}
.versions thead th{font-size:13px;font-weight:600;vertical-align:bottom;border-bottom:1px solid var(--ink)}
.versions tbody tr{border-bottom:1px solid var(--line)}
.versions tbody th{font-weight:600}
.versions small{display:block}
.versions td b,.deployed b{color:var(--accent);font-weight:650}
.now{background:var(--tint);box-shadow:-14px 0 0 var(--tint),14px 0 0 var(--tint)}
.tag{display:inline-block;margin-left:8px;padding:0 7px;border-radius:9px;background:var(--accent);
color:var(--on);font-size:11px;font-weight:600;line-height:18px;vertical-align:1px;white-space:nowrap}
.verdict{display:inline-block;padding:0 9px;border-radius:11px;border:1px solid var(--soft);font-size:12px;
font-weight:600;line-height:20px;white-space:nowrap;vertical-align:1px}
.verdict.promote{border-color:var(--accent);color:var(--accent)}
.verdict.reject{background:var(--ink);border-color:var(--ink);color:var(--paper)}
article+article{margin-top:44px}
article.judged h3{display:flex;flex-wrap:wrap;gap:10px;align-items:center;overflow-wrap:anywhere}
.reason{max-width:84ch;margin-top:8px;color:var(--soft);font-size:14px;overflow-wrap:anywhere}
.effects{margin-top:18px;font-size:14px;table-layout:fixed}
.effects th,.effects td{padding:5px 0;text-align:left;vertical-align:middle}
.effects th:first-child{width:21%}.effects th:last-child{width:27%}
.effects td:last-child,.effects th:last-child{padding-left:28px}
.effects thead th{font-size:13px;font-weight:600;border-bottom:1px solid var(--line)}
.effects tbody th{font-weight:600}
.effects small{display:block}.soft{color:var(--soft)}
.ends{display:flex;justify-content:space-between;font-weight:400;color:var(--soft)}
.ends i{font-style:normal}.ends i:first-child::before{content:"← "}.ends i:last-child::after{content:" →"}
.effect{display:block;overflow:visible}.effect line{stroke-width:1}
.effect .zero{stroke:var(--soft)}.effect .allowed{fill:var(--line);opacity:.6}
.effect .bound{fill:var(--soft)}.effect .margin{stroke:var(--soft);stroke-dasharray:3 3}
.effect g line{stroke-width:2}.effect circle{stroke-width:2}
.effect .shown line,.effect .shown circle{stroke:var(--accent)}.effect .shown circle{fill:var(--accent)}
.effect .open line,.effect .open circle{stroke:var(--ink)}.effect .open circle{fill:var(--paper)}
.axis text{fill:var(--soft);font-size:12px}.scale td{padding:0 0 12px}
@media (max-width:1000px){.effects th:last-child{width:38%}.effects th:first-child{width:24%}}
@media (max-width:1120px){.versions,.versions tbody,.versions tr,.versions th,.versions td{display:block}
.versions thead{display:none}.versions tbody tr{padding:18px 0}
.versions tbody tr{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:12px 24px}
.versions tbody th{grid-column:1/-1;padding:0;font-size:16px}
.versions td,.versions td:last-child{padding:0;text-align:left;white-space:normal}
.versions td::before{content:attr(data-head);display:block;font-size:12px;color:var(--soft)}}
@media (max-width:640px){.versions tbody tr{grid-template-columns:1fr 1fr}
.effects thead{display:none}.effects,.effects tbody{display:block}.effects tr{display:grid;
grid-template-columns:1fr auto;column-gap:12px;padding:8px 0;font-size:13px}
.effects th,.effects td,.effects td:last-child{padding:0}.effects th:first-child{width:auto}
.effects td:nth-child(2){grid-row:2;grid-column:1/-1}.effects td:last-child{text-align:right}
.effects tr.scale{display:block;padding:0 0 8px}.effects tr.scale td:not(:nth-child(2)){display:none}}
"""

FIGURES = """
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:40px 36px}
figure{min-width:0;max-width:520px}
figcaption{font-weight:600;font-size:15px;margin-bottom:8px;overflow-wrap:anywhere}
figcaption small{margin-left:8px}
.chart{display:block;width:100%;height:auto;font:12px var(--sans)}
.chart .grid{stroke:var(--line);fill:none}.chart .soft{fill:var(--soft)}
.chart .line{stroke:var(--accent);stroke-width:2;fill:none;stroke-linejoin:round}
.chart .raw{stroke:var(--soft);opacity:.35;fill:none}
.chart .dot{fill:var(--accent)}.chart .value{fill:var(--accent);font-size:13px;font-weight:600}
pre{font:13px/1.5 var(--mono);white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}
.given{display:grid;grid-template-columns:minmax(0,2fr) minmax(0,1fr);gap:16px 24px;margin-top:14px;
align-items:start}
.document{padding:4px 20px;max-height:280px;overflow:auto;border-left:2px solid var(--line);
color:var(--soft)}
.sample .answers{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,220px),1fr));gap:16px;
margin-top:16px}
.answer{display:flex;flex-direction:column;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:14px 16px;min-width:0}
.gold{border-color:var(--accent)}.gold pre{margin-bottom:0}
@media (max-width:760px){.given{grid-template-columns:minmax(0,1fr)}}
.answer h4{overflow-wrap:anywhere}
.answer pre{margin:10px 0 14px}
.marks{display:flex;flex-wrap:wrap;gap:4px 14px;margin-top:auto;font-size:13px;color:var(--soft)}
.ok::before{content:"✓ ";color:var(--accent)}
.bad{color:var(--ink);font-weight:600}.bad::before{content:"✕ "}
.notes{padding-left:20px;max-width:76ch}.notes li{margin-top:8px;overflow-wrap:anywhere}
.notes li::marker{color:var(--accent)}
@media print{body{background:#fff}section,article,figure,.answer{break-inside:avoid}
.document{max-height:none}}
"""

VERDICT = """
.said{margin-top:32px;font-size:18px;max-width:76ch}.said .verdict{font-size:14px;line-height:26px;
padding:0 12px;border-radius:14px;margin-right:8px}
header>.notes{margin-top:12px}header{padding-bottom:8px}
.scroll{overflow-x:auto;margin-top:24px}
.plain{font-size:14px}.plain th,.plain td{padding:9px 18px 9px 0;text-align:left;vertical-align:top;
white-space:nowrap;border-bottom:1px solid var(--line)}
.plain thead th{font-size:13px;border-bottom:1px solid var(--ink)}.plain tbody th{font-weight:600}
.pairs td{white-space:normal;overflow-wrap:anywhere;max-width:100ch}.pairs{width:auto}
figure.wide{max-width:840px}
.chart .old{stroke:var(--soft);stroke-width:2;fill:none}
.chart .key{font-size:13px;font-weight:600;stroke:none}
.chart text.old{fill:var(--soft)}.chart text.line{fill:var(--accent)}
.sample .caption{margin-top:4px}.sample .document{margin-top:14px}
"""

STYLESHEET = (STYLE + LOOP + TABLES + FIGURES + VERDICT).strip()
