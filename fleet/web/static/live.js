// Keeps a page true while it is looked at: pieces that have changed come as server-sent events, rendered by the server.
// Without this script the page is whole, and as old as its loading.
"use strict";
(() => {
  const at = document.body.dataset.live;
  const button = document.getElementById("live");
  const told = document.getElementById("told");
  let ahead = Number(document.body.dataset.now) * 1000 - Date.now(); // our clock may be wrong; the server's counts
  let source = null;
  let wanted = true;
  let again = 0;
  let waits = 1000;
  let saidAt = 0;

  const rough = (s) => {
    if (s < 60) return `${Math.floor(s)} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    if (s < 86400) return `${Math.floor(s / 3600)} h`;
    const days = Math.floor(s / 86400);
    return `${days} day${days === 1 ? "" : "s"}`;
  };
  const exact = (s) => {
    const whole = Math.round(s);
    if (whole < 60) return `${whole} s`;
    const minutes = Math.floor(whole / 60);
    if (minutes < 60) return `${minutes} min ${String(whole % 60).padStart(2, "0")} s`;
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  };
  const count = () => {
    const now = Date.now() + ahead;
    for (const time of document.querySelectorAll("main time[datetime]")) {
      const past = (now - Date.parse(time.dateTime)) / 1000;
      let text;
      if ("left" in time.dataset) text = past < 0 ? `in ${exact(-past)}` : "any moment";
      else if (past < -1) text = `in ${rough(-past)}`;
      else text = past < 2 ? "just now" : `${rough(past)} ago`;
      if (time.textContent !== text) time.textContent = text;
    }
  };
  const say = (text) => {
    if (text && Date.now() - saidAt > 10000) {
      saidAt = Date.now();
      told.textContent = text;
    }
  };

  // What has the focus, is scrolled or unfolded, stays so in the piece that replaces it.
  const placed = (part) => {
    const has = document.activeElement;
    if (!has || has === part || !part.contains(has)) return null;
    const alike = (inside) => [...inside.querySelectorAll(has.tagName)].filter(
      (e) => e.getAttribute("href") === has.getAttribute("href") && e.className === has.className);
    const nth = alike(part).indexOf(has);
    return () => { const e = alike(part)[nth]; if (e) e.focus({ preventScroll: true }); };
  };
  const put = (name, html) => {
    const part = document.getElementById(name);
    if (!part) return;
    const refocus = placed(part);
    const across = [...part.querySelectorAll(".scroll")].map((e) => e.scrollLeft);
    const open = [...part.querySelectorAll("details")].map((e) => e.open);
    part.innerHTML = html;
    part.querySelectorAll("details").forEach((e, i) => { e.open = open[i] || false; });
    part.querySelectorAll(".scroll").forEach((e, i) => { e.scrollLeft = across[i] || 0; });
    if (refocus) refocus();
  };
  const version = () => document.querySelector("[data-version]");
  const heard = (event) => {
    const { now, parts } = JSON.parse(event.data);
    ahead = now * 1000 - Date.now();
    const before = version() && version().dataset.version;
    for (const [name, html] of Object.entries(parts)) put(name, html);
    count();
    const made = version();
    if (made && made.dataset.version !== before) {
      say(made.dataset.told);
      document.dispatchEvent(new Event("version"));
    }
  };

  const show = (text, away) => {
    button.textContent = text;
    button.classList.toggle("away", away);
    button.setAttribute("aria-pressed", String(wanted));
  };
  const stop = () => {
    clearTimeout(again);
    if (source) source.close();
    source = null;
  };
  const start = () => {
    stop();
    source = new EventSource(at);
    source.onopen = () => { waits = 1000; show("live", false); };
    source.onmessage = heard;
    source.onerror = () => {
      show("trying again", true);
      if (source && source.readyState === EventSource.CLOSED) { // refused: a browser does not try again by itself
        stop();
        again = setTimeout(start, waits);
        waits = Math.min(2 * waits, 30000);
      }
    };
  };
  const settle = () => {
    if (wanted && !document.hidden) start(); // a browser has six connections for all its windows: hidden ones need none
    else { stop(); if (!wanted) show("held", false); }
  };
  setInterval(count, 1000);
  count();
  if (!at || !window.EventSource) return;
  button.hidden = false;
  button.title = "Hold this page as it is, or let it follow the fleet";
  show("live", false);
  button.addEventListener("click", () => { wanted = !wanted; settle(); });
  document.addEventListener("visibilitychange", settle);
  window.addEventListener("pagehide", stop);
  window.addEventListener("pageshow", (event) => { if (event.persisted) settle(); });
  settle();
})();
