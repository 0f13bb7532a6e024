// Draws the curves of a job with uPlot in the place of the server's drawings, and again whenever a version is made.
"use strict";
(() => {
  const host = document.querySelector("[data-curves]");
  if (!host || !window.uPlot) return;
  const byTime = host.dataset.x === "time";
  const plots = new Map();
  let asking = false;
  let stale = false;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const bytes = (v) => {
    for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) if (v >= size) return `${+(v / size).toPrecision(3)} ${unit}`;
    return `${v} B`;
  };
  const said = (unit, v) => {
    if (v === null || v === undefined) return "–";
    if (unit === "bytes") return bytes(v);
    return `${+v.toPrecision(4)}${unit === "seconds" ? " s" : ""}`;
  };
  const axis = (more) => ({
    stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false },
    font: "12px system-ui, sans-serif", ...more,
  });
  const options = (figure, unit, width) => ({
    width, height: 150, padding: [8, 8, 0, 0], legend: { show: false },
    cursor: { y: false, drag: { x: true, y: false }, sync: { key: "curves" } },
    scales: { x: { time: byTime } },
    axes: [
      axis({ size: 26, ...(byTime ? {} : { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000] }) }),
      axis({ size: 58, values: (_, ticks) => ticks.map((v) => said(unit, v)) }),
    ],
    series: [{}, { stroke: colour("--link"), width: 2, points: { show: false }, spanGaps: true }],
    hooks: {
      setCursor: [(plot) => {
        const last = figure.querySelector(".last");
        const i = plot.cursor.idx;
        const there = i !== null && i !== undefined && plot.data[1][i] !== null;
        last.textContent = said(unit, there ? plot.data[1][i] : figure.latest);
      }],
    },
  });

  const made = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text) element.textContent = text;
    return element;
  };
  const framed = (series) => { // a curve that was not there yet when the page was made
    const figure = made("figure");
    figure.dataset.series = series.name;
    figure.dataset.unit = series.unit;
    const caption = made("figcaption");
    caption.append(made("span", "", series.title), " ", made("b", "last"));
    figure.append(caption, made("div", "plot"));
    return figure;
  };

  const draw = (curves) => {
    const there = new Set([...host.querySelectorAll("figure[data-series]")].map((figure) => figure.dataset.series));
    for (const series of curves.series) if (!there.has(series.name) && !series.name.includes(":")) host.insertBefore(framed(series), host.querySelector("details"));
    if (curves.series.length) document.getElementById("no-curves")?.remove();
    const xs = byTime ? curves.at : curves.numbers;
    for (const figure of host.querySelectorAll("figure[data-series]")) {
      const series = curves.series.find((s) => s.name === figure.dataset.series);
      if (!series) continue;
      const unit = figure.dataset.unit;
      const place = figure.querySelector(".plot");
      const data = [xs, series.values];
      const known = series.values.filter((v) => v !== null);
      figure.latest = known[known.length - 1];
      figure.querySelector(".last").textContent = said(unit, figure.latest);
      if (xs.length < 2) continue;
      const plot = plots.get(figure);
      if (plot) plot.setData(data);
      else {
        const width = place.clientWidth;
        place.replaceChildren();
        place.setAttribute("aria-hidden", "true"); // the table of versions says the same
        figure.classList.add("drawn");
        plots.set(figure, new window.uPlot(options(figure, unit, width), data, place));
      }
    }
  };
  const ask = async () => {
    if (asking) { stale = true; return; }
    asking = true;
    try {
      const answer = await fetch(host.dataset.curves);
      if (answer.ok) draw(await answer.json());
    } catch { /* the drawings that are there stay */ } finally {
      asking = false;
      if (stale) { stale = false; setTimeout(ask, 1000); }
    }
  };
  const again = () => {
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    ask();
  };
  let resized = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(resized);
    resized = requestAnimationFrame(() => {
      for (const [figure, plot] of plots) {
        const width = figure.querySelector(".plot").clientWidth;
        if (Math.abs(width - plot.width) > 1) plot.setSize({ width, height: 150 });
      }
    });
  }).observe(host);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  document.addEventListener("version", ask);
  ask();
})();
